// Probe is the program that the layout and recipe tables are learned from. It is built, never run: what matters
// is that it links the parts of the runtime that a server links.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"runtime/trace"
	"sync"
	"syscall"
	"time"
)

func serve(l net.Listener, work func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go work(c)
	}
}

func profiles(w io.Writer) {
	for _, p := range pprof.Profiles() {
		_ = p.WriteTo(w, 1)
	}
	_ = pprof.StartCPUProfile(w)
	pprof.StopCPUProfile()
	_ = trace.Start(w)
	trace.Stop()
	samples := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(samples)
	fmt.Fprintln(w, samples)
}

func knobs(w io.Writer) {
	runtime.MemProfileRate = 1 << 16
	runtime.SetBlockProfileRate(1)
	runtime.SetMutexProfileFraction(1)
	runtime.GOMAXPROCS(2)
	debug.SetGCPercent(50)
	debug.SetMaxThreads(1000)
	debug.SetTraceback("all")
	debug.FreeOSMemory()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	buf := make([]byte, 1<<16)
	buf = buf[:runtime.Stack(buf, true)]
	fmt.Fprintln(w, stats.NumGC, runtime.NumGoroutine(), runtime.NumCPU(), len(buf))
}

func main() {
	var group sync.WaitGroup
	var lock sync.RWMutex
	cond := sync.NewCond(&lock)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGHUP)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	counts := map[string]int{}
	go serve(listener, func(c net.Conn) {
		group.Add(1)
		defer group.Done()
		defer func() {
			if r := recover(); r != nil {
				fmt.Fprintln(os.Stderr, r)
			}
		}()
		labels := pprof.Labels("peer", c.RemoteAddr().String())
		pprof.Do(context.Background(), labels, func(context.Context) {
			runtime.LockOSThread()
			lock.Lock()
			counts[c.LocalAddr().String()]++
			lock.Unlock()
			cond.Broadcast()
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_, _ = io.Copy(c, c)
			_ = c.Close()
		})
	})
	runtime.SetFinalizer(&counts, func(*map[string]int) {})
	coroutines()
	cleanups()
	ticker := time.NewTicker(time.Second)
	timer := time.AfterFunc(time.Minute, func() { cond.Signal() })
	select {
	case <-signals:
	case <-ticker.C:
	}
	timer.Stop()
	profiles(os.Stdout)
	knobs(os.Stdout)
	group.Wait()
}
