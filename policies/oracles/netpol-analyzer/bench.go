package main

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"syscall"
	"time"

	"github.com/np-guard/netpol-analyzer/pkg/netpol/connlist"
)

// timing is what `bench` prints, one JSON object. Times are in seconds.
type timing struct {
	Engine string `json:"engine"`
	// Peers are the pods (an owner's pods count once or twice, as the analyzer groups them); connections are the pairs of
	// peers, address ranges included, that have any connection.
	Peers       int     `json:"peers"`
	Connections int     `json:"connections"`
	Elapsed     float64 `json:"elapsed_s"`
	Finished    bool    `json:"finished"`
	PeakRSS     int64   `json:"peak_rss_bytes"`
}

type listing struct {
	peers       int
	connections int
	err         error
}

func bench(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	dir := flags.String("dir", "", "folder of manifests")
	limit := flags.Duration("limit", 120*time.Second, "give up after this long")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" {
		return errors.New("bench needs --dir")
	}
	start := time.Now()
	finished := make(chan listing, 1)
	go func() {
		analyzer := connlist.NewConnlistAnalyzer(connlist.WithLogger(silence{}), connlist.WithMuteErrsAndWarns())
		connections, peers, err := analyzer.ConnlistFromDirPath(*dir)
		finished <- listing{len(peers), len(connections), err}
	}()
	result := timing{Engine: "netpol-analyzer"}
	select {
	case l := <-finished:
		if l.err != nil {
			return l.err
		}
		result.Peers, result.Connections, result.Finished = l.peers, l.connections, true
	case <-time.After(*limit):
		// The analyzer cannot be interrupted; the end of the process ends it.
	}
	result.Elapsed = time.Since(start).Seconds()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return err
	}
	result.PeakRSS = usage.Maxrss * 1024
	return json.NewEncoder(out).Encode(result)
}
