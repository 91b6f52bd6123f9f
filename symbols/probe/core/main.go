// Core links of the runtime what is reached without any other package, so that it is built in seconds in each way of
// compiling: what these change in the code is learned from it.
package main

import "runtime"

func profiles() int {
	var memory [16]runtime.MemProfileRecord
	var blocks [16]runtime.BlockProfileRecord
	var stacks [16]runtime.StackRecord
	runtime.MemProfileRate = 1 << 16
	runtime.SetBlockProfileRate(1)
	runtime.SetMutexProfileFraction(1)
	runtime.SetCPUProfileRate(100)
	n, _ := runtime.MemProfile(memory[:], true)
	b, _ := runtime.BlockProfile(blocks[:])
	m, _ := runtime.MutexProfile(blocks[:])
	t, _ := runtime.ThreadCreateProfile(stacks[:])
	g, _ := runtime.GoroutineProfile(stacks[:])
	return n + b + m + t + g
}

func trace() int {
	if err := runtime.StartTrace(); err != nil {
		return 0
	}
	defer runtime.StopTrace()
	return len(runtime.ReadTrace())
}

func knobs() int {
	var stats runtime.MemStats
	runtime.GOMAXPROCS(2)
	runtime.GC()
	runtime.ReadMemStats(&stats)
	runtime.LockOSThread()
	buf := make([]byte, 1<<16)
	return len(buf[:runtime.Stack(buf, true)]) + runtime.NumGoroutine() + runtime.NumCPU() + int(stats.NumGC)
}

func main() {
	counts, done := map[string]int{}, make(chan int)
	runtime.SetFinalizer(&counts, func(*map[string]int) {})
	go func() {
		defer func() { done <- len(counts) }()
		defer func() { _ = recover() }()
		counts[runtime.Version()]++
	}()
	select {
	case n := <-done:
		println(n)
	}
	println(profiles(), trace(), knobs())
}
