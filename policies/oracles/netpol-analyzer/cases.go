package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/np-guard/netpol-analyzer/pkg/netpol/connlist"
	v1 "k8s.io/api/core/v1"
	"k8s.io/cli-runtime/pkg/resource"
)

// The longest case that is read. A case is a small cluster; a longer line is a mistake of the caller.
const maxLine = 64 << 20

// testCase is one line of the input.
type testCase struct {
	ID string `json:"id"`
	// YAML documents of any kind that the analyzer reads.
	Manifests string  `json:"manifests"`
	Queries   []query `json:"queries"`
}

// query is one packet.
type query struct {
	Src      endpoint `json:"src"`
	Dst      endpoint `json:"dst"`
	Protocol string   `json:"protocol"`
	Port     int64    `json:"port"`
}

// endpoint is a pod ("namespace/name"; it must have no owner) or an address outside the cluster.
type endpoint struct {
	Pod string `json:"pod"`
	IP  string `json:"ip"`
}

// verdict is one answer. The analyzer joins both directions, so that there is only one truth value.
type verdict struct {
	Allowed *bool  `json:"allowed,omitempty"`
	Error   string `json:"error,omitempty"`
}

// answer is one line of the output. With Error set, the whole case could not be read and there are no verdicts.
type answer struct {
	ID       string    `json:"id"`
	Verdicts []verdict `json:"verdicts,omitempty"`
	Error    string    `json:"error,omitempty"`
}

func answerCases(in io.Reader, out io.Writer) error {
	reader := bufio.NewReaderSize(in, 1<<20)
	encoder := json.NewEncoder(out)
	for {
		line, err := readLine(reader)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var c testCase
		if err := json.Unmarshal(line, &c); err != nil {
			return fmt.Errorf("a line of the input is no case: %w", err)
		}
		if err := encoder.Encode(c.answer()); err != nil {
			return err
		}
	}
}

func readLine(reader *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, isPrefix, err := reader.ReadLine()
		if err != nil {
			return nil, err
		}
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, fmt.Errorf("a line of the input is longer than %d bytes", maxLine)
		}
		if !isPrefix {
			return line, nil
		}
	}
}

func (c *testCase) answer() (result answer) {
	defer func() {
		if r := recover(); r != nil {
			result = answer{ID: c.ID, Error: fmt.Sprintf("panic: %v", r)}
		}
	}()
	infos, err := resource.NewLocalBuilder().Unstructured().
		Stream(strings.NewReader(c.Manifests), c.ID).Flatten().Do().Infos()
	if err != nil {
		return answer{ID: c.ID, Error: err.Error()}
	}
	analyzer := connlist.NewConnlistAnalyzer(connlist.WithLogger(silence{}), connlist.WithMuteErrsAndWarns())
	connections, _, err := analyzer.ConnlistFromResourceInfos(infos)
	if err != nil {
		return answer{ID: c.ID, Error: err.Error()}
	}
	for _, problem := range analyzer.Errors() {
		if problem.IsFatal() || problem.IsSevere() {
			return answer{ID: c.ID, Error: problem.Error().Error()}
		}
	}
	covered := podsInBlocks(infos)
	result = answer{ID: c.ID, Verdicts: make([]verdict, 0, len(c.Queries))}
	for _, q := range c.Queries {
		result.Verdicts = append(result.Verdicts, q.verdict(connections, covered))
	}
	return result
}

// verdict looks a packet up in the list of connections. A pair that is not listed has no connection.
func (q *query) verdict(connections []connlist.Peer2PeerConnection, covered map[string]bool) verdict {
	if q.Src.Pod != "" && q.Src.Pod == q.Dst.Pod {
		return verdict{Error: "traffic of a pod to itself: the analyzer does not list it"}
	}
	for _, end := range []endpoint{q.Src, q.Dst} {
		if strings.Contains(end.IP, ":") {
			return verdict{Error: "an IPv6 address: the analyzer knows IPv4 only"}
		}
		if covered[end.Pod] {
			return verdict{Error: "an address block covers this pod: the analyzer matches blocks with addresses outside only"}
		}
	}
	allowed := false
	for _, connection := range connections {
		fromSource, err := q.Src.isPeer(connection.Src())
		if err != nil {
			return verdict{Error: err.Error()}
		}
		toDestination, err := q.Dst.isPeer(connection.Dst())
		if err != nil {
			return verdict{Error: err.Error()}
		}
		if !fromSource || !toDestination {
			continue
		}
		if connection.AllProtocolsAndPorts() {
			allowed = true
			break
		}
		for _, ports := range connection.ProtocolsAndPorts()[v1.Protocol(q.Protocol)] {
			// The list holds denied ranges too, and the interface does not tell them apart.
			set, ok := ports.(interface{ InSet() bool })
			if !ok {
				return verdict{Error: "the analyzer's port ranges have changed"}
			}
			allowed = allowed || (set.InSet() && ports.Start() <= q.Port && q.Port <= ports.End())
		}
	}
	return verdict{Allowed: &allowed}
}

func (e *endpoint) isPeer(peer connlist.Peer) (bool, error) {
	if e.Pod != "" {
		return !peer.IsPeerIPType() && e.Pod == peer.Namespace()+"/"+peer.Name(), nil
	}
	if !peer.IsPeerIPType() {
		return false, nil
	}
	address, err := netip.ParseAddr(e.IP)
	if err != nil {
		return false, err
	}
	// The analyzer writes a set of addresses as "a-b", "cidr" or "a", several of them with commas.
	for _, part := range strings.Split(peer.IP(), ",") {
		inside, err := contains(strings.TrimSpace(part), address)
		if err != nil || inside {
			return inside, err
		}
	}
	return false, nil
}

func contains(block string, address netip.Addr) (bool, error) {
	if first, last, ok := strings.Cut(block, "-"); ok {
		low, err := netip.ParseAddr(first)
		if err != nil {
			return false, err
		}
		high, err := netip.ParseAddr(last)
		if err != nil {
			return false, err
		}
		return low.Compare(address) <= 0 && address.Compare(high) <= 0, nil
	}
	if strings.Contains(block, "/") {
		prefix, err := netip.ParsePrefix(block)
		if err != nil {
			return false, err
		}
		return prefix.Contains(address), nil
	}
	single, err := netip.ParseAddr(block)
	return single == address, err
}
