// Service is a program that recipes are measured on. Nothing is learned from it.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"time"
)

func work(jobs <-chan int, results chan<- string, group *sync.WaitGroup) {
	defer group.Done()
	for job := range jobs {
		results <- fmt.Sprint(job * job)
	}
}

func main() {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	jobs, results := make(chan int), make(chan string, 16)
	var group sync.WaitGroup
	for range [4]struct{}{} {
		group.Add(1)
		go work(jobs, results, &group)
	}
	go func() {
		for text := range results {
			fmt.Println(text)
		}
	}()
	ticker := time.NewTicker(time.Second)
	for i := 0; ; i++ {
		select {
		case <-interrupted:
			close(jobs)
			group.Wait()
			_ = pprof.Lookup("heap").WriteTo(os.Stdout, 1)
			return
		case <-ticker.C:
			jobs <- i
			debug.SetGCPercent(100 + i)
		}
	}
}
