//go:build go1.24

package main

import (
	"runtime"
	"unique"
)

func cleanups() {
	value := new([64]byte)
	runtime.AddCleanup(value, func(int) {}, unique.Make(1).Value())
}
