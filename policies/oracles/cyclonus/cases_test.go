package main

import (
	"encoding/json"
	"strings"
	"testing"
)

const pods = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: red}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db, tier: ""}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.2}
`

func policy(spec string) string {
	return pods + "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n" +
		"metadata: {name: one, namespace: shop}\nspec: " + spec + "\n"
}

// ask returns the answer to one packet from one endpoint to another, as one line of JSON.
func ask(t *testing.T, manifests string, src, dst endpoint, protocol string, port int) string {
	t.Helper()
	c := testCase{ID: "t", Manifests: manifests, Queries: []query{{Src: src, Dst: dst, Protocol: protocol, Port: port}}}
	line, err := json.Marshal(c.answer())
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

func TestAnswers(t *testing.T) {
	web, db, outside := endpoint{Pod: "shop/web"}, endpoint{Pod: "shop/db"}, endpoint{IP: "203.0.113.9"}
	allowed := `{"id":"t","verdicts":[{"ingress":true,"egress":true,"allowed":true}]}`
	noIngress := `{"id":"t","verdicts":[{"ingress":false,"egress":true,"allowed":false}]}`
	cases := []struct {
		name, spec string
		src, dst   endpoint
		port       int
		want       string
	}{
		{"a policy without policyTypes isolates for ingress", `{podSelector: {}}`, web, db, 80, noIngress},
		{"and leaves egress alone", `{podSelector: {matchLabels: {app: web}}}`, web, db, 80, allowed},
		{"egress rules add the egress type", `{podSelector: {matchLabels: {app: web}}, egress: [{ports: [{port: 81}]}]}`,
			web, db, 80, `{"id":"t","verdicts":[{"ingress":true,"egress":false,"allowed":false}]}`},
		{"NotIn matches a label that is absent",
			`{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db]}, {key: tier, operator: NotIn, values: [x]}]}}`,
			db, web, 80, noIngress},
		{"NotIn does not match a value of the list",
			`{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}`, db, web, 80, allowed},
		{"an empty value in matchLabels does not match a label that is absent",
			`{podSelector: {matchLabels: {tier: ""}}}`, db, web, 80, allowed},
		{"an empty value in matchLabels matches an empty value",
			`{podSelector: {matchLabels: {tier: ""}}}`, web, db, 80, noIngress},
		{"a named port is looked up in the destination",
			`{podSelector: {}, ingress: [{ports: [{port: http}]}]}`, db, web, 8080, allowed},
		{"a named port is not any port",
			`{podSelector: {}, ingress: [{ports: [{port: http}]}]}`, db, web, 8081, noIngress},
		{"an address outside is matched by its block",
			`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}`, outside, web, 80, allowed},
		{"and not by what the block leaves out",
			`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.8/29]}}]}]}`,
			outside, web, 80, noIngress},
	}
	for _, c := range cases {
		if got := ask(t, policy(c.spec), c.src, c.dst, "TCP", c.port); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestTrafficOfAPodToItselfIsRefused(t *testing.T) {
	web := endpoint{Pod: "shop/web"}
	want := `{"id":"t","verdicts":[{"error":"traffic of a pod to itself"}]}`
	if got := ask(t, policy(`{podSelector: {}}`), web, web, "TCP", 80); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWhatIsNotUnderstoodIsAnErrorAndNoVerdict(t *testing.T) {
	web, db := endpoint{Pod: "shop/web"}, endpoint{Pod: "shop/db"}
	cases := []struct{ name, manifests, protocol, want string }{
		{"an unknown field", policy(`{podSelector: {}, ingres: []}`), "TCP", `unknown field`},
		{"a range that ends before it starts", policy(`{podSelector: {}, ingress: [{ports: [{port: 9, endPort: 3}]}]}`), "TCP", `invalid port range`},
		{"a name that YAML reads as a boolean", strings.Replace(policy(`{podSelector: {}}`), "name: one", "name: n", 1),
			"TCP", `cannot unmarshal bool`},
		{"a protocol without ports", policy(`{podSelector: {}}`), "ICMP", `knows no protocol`},
	}
	for _, c := range cases {
		got := ask(t, c.manifests, web, db, c.protocol, 80)
		if !strings.Contains(got, `"error":`) || !strings.Contains(got, c.want) || strings.Contains(got, "allowed") {
			t.Errorf("%s: got %s, want an error with %q", c.name, got, c.want)
		}
	}
}
