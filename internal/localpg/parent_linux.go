package localpg

import "syscall"

// endWithParent lets the kernel send a signal to a process when the thread that starts it ends.
func endWithParent(attributes *syscall.SysProcAttr, signal syscall.Signal) {
	attributes.Pdeathsig = signal
}
