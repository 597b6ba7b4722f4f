package server

import (
	"net/http"
	"net/http/pprof"
)

// pprofHandler serves Go's profiles. They have a listener of their own: whatever may read the metrics may not also use the
// server's CPU for a trace, or read its memory. The command line of the process is not served.
func pprofHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", http.NotFound)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
