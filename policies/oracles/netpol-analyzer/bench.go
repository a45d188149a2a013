package main

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"syscall"
	"time"

	"github.com/np-guard/netpol-analyzer/pkg/manifests/fsscanner"
	"github.com/np-guard/netpol-analyzer/pkg/netpol/connlist"
)

// timing is what `bench` prints, one JSON object. Times are in seconds.
type timing struct {
	Engine string `json:"engine"`
	// Peers are the pods (an owner's pods count once or twice, as the analyzer groups them); connections are the pairs of
	// peers, address ranges included, that have any connection.
	Peers       int `json:"peers"`
	Connections int `json:"connections"`
	// Those of the connections that are from a pod to a pod: a sum to compare engines by.
	PodPairs int `json:"pod_pairs"`
	// Reading files into objects of the Kubernetes client, then everything else.
	Load     float64 `json:"load_s"`
	Evaluate float64 `json:"evaluate_s"`
	Elapsed  float64 `json:"elapsed_s"`
	Finished bool    `json:"finished"`
	PeakRSS  int64   `json:"peak_rss_bytes"`
}

type listing struct {
	peers       int
	connections int
	podPairs    int
	load        time.Duration
	err         error
}

// list is what the analyzer's ConnlistFromDirPath does, with the time between its two steps.
func list(dir string) listing {
	start := time.Now()
	infos, errs := fsscanner.GetResourceInfosFromDirPath([]string{dir}, true, true)
	if len(errs) > 0 {
		return listing{err: errors.Join(errs...)}
	}
	l := listing{load: time.Since(start)}
	analyzer := connlist.NewConnlistAnalyzer(connlist.WithLogger(silence{}), connlist.WithMuteErrsAndWarns())
	connections, peers, err := analyzer.ConnlistFromResourceInfos(infos)
	l.peers, l.connections, l.err = len(peers), len(connections), err
	for _, connection := range connections {
		if !connection.Src().IsPeerIPType() && !connection.Dst().IsPeerIPType() {
			l.podPairs++
		}
	}
	return l
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
	go func() { finished <- list(*dir) }()
	result := timing{Engine: "netpol-analyzer"}
	select {
	case l := <-finished:
		if l.err != nil {
			return l.err
		}
		result.Peers, result.Connections, result.PodPairs, result.Finished = l.peers, l.connections, l.podPairs, true
		result.Load, result.Evaluate = l.load.Seconds(), (time.Since(start) - l.load).Seconds()
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
