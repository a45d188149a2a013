// Command cyclonus-oracle answers "may this packet pass?" with the matcher of cyclonus, an engine that shares no code with
// this repository.
//
//	cyclonus-oracle                      reads one JSON case a line, writes one JSON answer a line (see cases.go)
//	cyclonus-oracle bench --dir FOLDER   times all ordered pairs of pods of a folder of manifests (see bench.go)
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
		fmt.Fprintln(os.Stderr, "usage: cyclonus-oracle < cases.jsonl | cyclonus-oracle bench --dir FOLDER")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cyclonus-oracle: %v\n", err)
		os.Exit(1)
	}
}
