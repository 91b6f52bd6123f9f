//go:build go1.23

package main

import (
	"fmt"
	"iter"
)

func coroutines() {
	next, stop := iter.Pull(func(yield func(int) bool) {
		_ = yield(1) && yield(2)
	})
	defer stop()
	fmt.Println(next())
}
