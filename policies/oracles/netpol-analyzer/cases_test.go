package main

import (
	"encoding/json"
	"testing"
)

const manifests = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: shop}
spec: {containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 203.0.113.5}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: one, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: db}}
    - ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.128/25]}
    ports: [{port: http}, {protocol: UDP, port: 53, endPort: 60}]
`

func TestAnswersComeFromTheListOfConnections(t *testing.T) {
	web, db := endpoint{Pod: "shop/web"}, endpoint{Pod: "shop/db"}
	near, far := endpoint{IP: "203.0.113.127"}, endpoint{IP: "203.0.113.128"}
	c := testCase{ID: "t", Manifests: manifests, Queries: []query{
		{db, web, "TCP", 8080}, {db, web, "TCP", 8081}, {db, web, "UDP", 60}, {db, web, "UDP", 61}, {web, db, "TCP", 1},
		{near, web, "TCP", 8080}, {far, web, "TCP", 8080}, {web, far, "SCTP", 9}, {web, web, "TCP", 1},
		{web, endpoint{Pod: "shop/near"}, "TCP", 1}, {web, endpoint{IP: "2001:db8::1"}, "TCP", 1},
	}}
	line, err := json.Marshal(c.answer())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"t","verdicts":[{"allowed":true},{"allowed":false},{"allowed":true},{"allowed":false},{"allowed":true},` +
		`{"allowed":true},{"allowed":false},{"allowed":true},` +
		`{"error":"traffic of a pod to itself: the analyzer does not list it"},` +
		`{"error":"an address block covers this pod: the analyzer matches blocks with addresses outside only"},` +
		`{"error":"an IPv6 address: the analyzer knows IPv4 only"}]}`
	if string(line) != want {
		t.Errorf("got %s, want %s", line, want)
	}
}
