package main

import "time"

type pair[T any] struct{ a, b T }

func (p pair[T]) wait(c chan T) T { return <-c }

func main() {
	c := make(chan int)
	go pair[int]{1, 2}.wait(c)
	time.Sleep(time.Hour)
	panic(c)
}
