// Command skiff is Kubernetes in one binary.
package main

func main() {}
