//go:build !linux

package localpg

import "syscall"

// endWithParent does nothing: only Linux can do it. The next start finds what was left.
func endWithParent(*syscall.SysProcAttr, syscall.Signal) {}
