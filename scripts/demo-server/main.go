// Command orders is the server that scripts/demo looks at: workers on a queue, a cache behind a lock that
// somebody holds too long, and an HTTP listener.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

type order struct {
	id    int
	items []string
}

type cache struct {
	mu    sync.Mutex
	stock map[string]int
}

// refill holds the lock until a slow supplier answers, which this one never does.
func (c *cache) refill(supplier net.Conn, locked chan<- struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(locked)
	var answer [64]byte
	n, err := supplier.Read(answer[:])
	if err == nil {
		c.stock[string(answer[:n])]++
	}
}

func (c *cache) take(o order) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, item := range o.items {
		c.stock[item]--
	}
}

func work(c *cache, queue <-chan order, wg *sync.WaitGroup) {
	defer wg.Done()
	for o := range queue {
		c.take(o)
	}
}

func report(every time.Duration) {
	for range time.Tick(every) {
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go http.Serve(listener, nil)
	go report(time.Hour)

	c := &cache{stock: map[string]int{}}
	supplier, _ := net.Pipe()
	locked := make(chan struct{})
	go c.refill(supplier, locked)
	<-locked

	queue := make(chan order)
	var wg sync.WaitGroup
	for i := 0; i < 3; i++ {
		wg.Add(1)
		go work(c, queue, &wg)
	}
	queue <- order{1, []string{"tea"}}
	fmt.Printf("serving on %s\n", listener.Addr())
	wg.Wait()
}
