package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	v1 "k8s.io/api/core/v1"
)

// timing is what `bench` prints, one JSON object. Times are in seconds.
type timing struct {
	Engine   string  `json:"engine"`
	Pods     int     `json:"pods"`
	Policies int     `json:"policies"`
	Ports    int     `json:"ports"`
	Load     float64 `json:"load_s"`
	Build    float64 `json:"build_s"`
	Evaluate float64 `json:"evaluate_s"`
	Elapsed  float64 `json:"elapsed_s"`
	// Ordered pairs of different pods, and how many of them were evaluated on every port before the limit.
	Pairs          int64   `json:"pairs"`
	PairsDone      int64   `json:"pairs_done"`
	PairsPerSecond float64 `json:"pairs_per_s"`
	// Allowed (pair, port) combinations: a sum to compare engines by.
	Allowed  int64 `json:"allowed"`
	Finished bool  `json:"finished"`
	PeakRSS  int64 `json:"peak_rss_bytes"`
}

type port struct {
	protocol v1.Protocol
	number   int
}

func bench(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	dir := flags.String("dir", "", "folder of manifests (*.yaml, not recursive)")
	portList := flags.String("ports", "TCP/80", "ports to ask for, such as TCP/80,UDP/53")
	limit := flags.Duration("limit", 120*time.Second, "stop evaluating after this long")
	workers := flags.Int("workers", 1, "threads that evaluate")
	simplify := flags.Bool("simplify", false, "let cyclonus simplify its targets first, as its command line does")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ports, err := parsePorts(*portList)
	if err != nil {
		return err
	}
	if *dir == "" || *workers < 1 {
		return errors.New("bench needs --dir and at least one worker")
	}

	start := time.Now()
	text, err := readFolder(*dir)
	if err != nil {
		return err
	}
	cluster, err := readManifests(text)
	if err != nil {
		return err
	}
	loaded := time.Now()
	policy := matcher.BuildNetworkPolicies(*simplify, cluster.policies)
	built := time.Now()
	pairsDone, allowed, err := evaluateAll(cluster, policy, ports, *workers, start.Add(*limit))
	if err != nil {
		return err
	}
	end := time.Now()

	n := int64(len(cluster.pods))
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(timing{
		Engine: "cyclonus", Pods: len(cluster.pods), Policies: len(cluster.policies), Ports: len(ports),
		Load: loaded.Sub(start).Seconds(), Build: built.Sub(loaded).Seconds(),
		Evaluate: end.Sub(built).Seconds(), Elapsed: end.Sub(start).Seconds(),
		Pairs: n * (n - 1), PairsDone: pairsDone, PairsPerSecond: float64(pairsDone) / end.Sub(built).Seconds(),
		Allowed: allowed, Finished: pairsDone == n*(n-1), PeakRSS: usage.Maxrss * 1024,
	})
}

func parsePorts(list string) ([]port, error) {
	var ports []port
	for _, item := range strings.Split(list, ",") {
		protocol, number, ok := strings.Cut(item, "/")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n < 1 || n > 65535 {
			return nil, fmt.Errorf("%q is no port; write it as TCP/80", item)
		}
		ports = append(ports, port{v1.Protocol(protocol), n})
	}
	return ports, nil
}

func readFolder(dir string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no *.yaml", dir)
	}
	sort.Strings(files)
	var text []byte
	for _, file := range files {
		part, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		text = append(append(text, part...), "\n---\n"...)
	}
	return text, nil
}

// evaluateAll asks for every port of every ordered pair of different pods. The sources are handed out one by one, so that a
// limit cuts off whole sources; the number of pairs that were evaluated is exact.
func evaluateAll(c *cluster, policy *matcher.Policy, ports []port, workers int, deadline time.Time) (int64, int64, error) {
	peers := make([]*matcher.TrafficPeer, len(c.pods))
	for i, pod := range c.pods {
		peers[i] = c.podPeer(pod)
	}
	var next, pairs, allowed atomic.Int64
	var failed atomic.Pointer[error]
	var group sync.WaitGroup
	for w := 0; w < workers; w++ {
		group.Add(1)
		go func() {
			defer group.Done()
			defer func() {
				if r := recover(); r != nil {
					err := fmt.Errorf("panic: %v", r)
					failed.Store(&err)
				}
			}()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(peers) || time.Now().After(deadline) {
					return
				}
				sum, done := int64(0), int64(0)
				for j := range peers {
					if i == j {
						continue
					}
					if done%256 == 0 && time.Now().After(deadline) {
						break
					}
					for _, p := range ports {
						if reaches(c.pods[j], policy, peers[i], peers[j], p) {
							sum++
						}
					}
					done++
				}
				pairs.Add(done)
				allowed.Add(sum)
			}
		}()
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return 0, 0, *err
	}
	return pairs.Load(), allowed.Load(), nil
}

func reaches(pod *v1.Pod, policy *matcher.Policy, source, destination *matcher.TrafficPeer, p port) bool {
	name := ""
	if names := namesOf(pod, string(p.protocol), p.number); len(names) > 0 {
		name = names[0]
	}
	return policy.IsTrafficAllowed(&matcher.Traffic{
		Source: source, Destination: destination,
		ResolvedPort: p.number, ResolvedPortName: name, Protocol: p.protocol,
	}).IsAllowed()
}
