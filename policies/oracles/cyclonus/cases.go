package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	v1 "k8s.io/api/core/v1"
)

// The longest case that is read. A case is a small cluster; a longer line is a mistake of the caller.
const maxLine = 64 << 20

// testCase is one line of the input.
type testCase struct {
	ID string `json:"id"`
	// YAML documents: Namespace, Pod, NetworkPolicy, or lists of them. Other kinds are skipped.
	Manifests string  `json:"manifests"`
	Queries   []query `json:"queries"`
}

// query is one packet.
type query struct {
	Src      endpoint `json:"src"`
	Dst      endpoint `json:"dst"`
	Protocol string   `json:"protocol"`
	Port     int      `json:"port"`
	// The name of the destination's port. Absent: looked up in the destination's containers.
	PortName *string `json:"port_name"`
}

// endpoint is a pod ("namespace/name"), an address outside the cluster, or a pod by one of its addresses.
type endpoint struct {
	Pod string `json:"pod"`
	IP  string `json:"ip"`
}

// verdict is one answer. Exactly one of Error and the three others is set.
type verdict struct {
	Ingress *bool  `json:"ingress,omitempty"`
	Egress  *bool  `json:"egress,omitempty"`
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
		// An encoder writes each line at once, so the caller may wait for one answer before it sends the next case.
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
	// The matcher panics on policies that it does not understand.
	defer func() {
		if r := recover(); r != nil {
			result = answer{ID: c.ID, Error: fmt.Sprintf("panic: %v", r)}
		}
	}()
	cluster, err := readManifests([]byte(c.Manifests))
	if err != nil {
		return answer{ID: c.ID, Error: err.Error()}
	}
	// Unsimplified: the simplifier's subtraction of port ranges is marked as unfinished upstream.
	policy := matcher.BuildNetworkPolicies(false, cluster.policies)
	result = answer{ID: c.ID, Verdicts: make([]verdict, 0, len(c.Queries))}
	for _, q := range c.Queries {
		result.Verdicts = append(result.Verdicts, q.verdict(cluster, policy))
	}
	return result
}

func (q *query) verdict(cluster *cluster, policy *matcher.Policy) (result verdict) {
	defer func() {
		if r := recover(); r != nil {
			result = verdict{Error: fmt.Sprintf("panic: %v", r)}
		}
	}()
	switch q.Protocol {
	case "TCP", "UDP", "SCTP":
	default:
		return verdict{Error: fmt.Sprintf("the matcher knows no protocol %q", q.Protocol)}
	}
	// "A pod cannot block access to itself" (Network Policies): the matcher has no rule for that.
	if q.Src.Pod != "" && q.Src.Pod == q.Dst.Pod {
		return verdict{Error: "traffic of a pod to itself"}
	}
	source, err := cluster.peer(q.Src)
	if err != nil {
		return verdict{Error: err.Error()}
	}
	destination, err := cluster.peer(q.Dst)
	if err != nil {
		return verdict{Error: err.Error()}
	}
	names := []string{""}
	if q.PortName != nil {
		names = []string{*q.PortName}
	} else if found := cluster.portNames(q.Dst, q.Protocol, q.Port); len(found) > 0 {
		names = found
	}
	ingress, egress := false, false
	// A port that has two names is reached through either.
	for _, name := range names {
		allowed := policy.IsTrafficAllowed(&matcher.Traffic{
			Source:           source,
			Destination:      destination,
			ResolvedPort:     q.Port,
			ResolvedPortName: name,
			Protocol:         v1.Protocol(q.Protocol),
		})
		ingress = ingress || allowed.Ingress.IsAllowed()
		egress = egress || allowed.Egress.IsAllowed()
	}
	both := ingress && egress
	return verdict{Ingress: &ingress, Egress: &egress, Allowed: &both}
}
