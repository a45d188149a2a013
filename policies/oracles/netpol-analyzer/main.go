// Command netpol-analyzer-oracle runs netpol-analyzer's list of connections, an engine that shares no code with this
// repository, over its public packages.
//
//	netpol-analyzer-oracle                      reads one JSON case a line, writes one JSON answer a line (see cases.go)
//	netpol-analyzer-oracle bench --dir FOLDER   times the list of all connections of a folder of manifests (see bench.go)
//
// Exit status: 0 done, 1 unreadable input, 2 wrong usage.
package main

import (
	"fmt"
	"os"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 1:
		err = answerCases(os.Stdin, os.Stdout)
	case os.Args[1] == "bench":
		err = bench(os.Args[2:], os.Stdout)
	default:
		fmt.Fprintln(os.Stderr, "usage: netpol-analyzer-oracle < cases.jsonl | netpol-analyzer-oracle bench --dir FOLDER")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "netpol-analyzer-oracle: %v\n", err)
		os.Exit(1)
	}
}

// silence drops what the analyzer logs: its warnings would be mixed into the answers of thousands of cases.
type silence struct{}

func (silence) Debugf(string, ...interface{})        {}
func (silence) Infof(string, ...interface{})         {}
func (silence) Warnf(string, ...interface{})         {}
func (silence) Errorf(error, string, ...interface{}) {}
