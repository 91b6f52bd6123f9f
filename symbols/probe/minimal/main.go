// Minimal links nothing but what every Go program links: functions that are the same here as in the large probe are
// the ones to rely on.
package main

func main() {
	println("ready")
}
