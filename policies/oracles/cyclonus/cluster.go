package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// cluster is what the matcher needs of the manifests.
type cluster struct {
	// In the order of the manifests.
	pods       []*v1.Pod
	podByName  map[string]*v1.Pod
	namespaces map[string]map[string]string
	policies   []*networkingv1.NetworkPolicy
	// Keys that some selector uses with NotIn; see asStored.
	notInKeys map[string]bool
}

// readManifests reads YAML documents as the API server would store them.
func readManifests(text []byte) (*cluster, error) {
	c := &cluster{
		podByName:  map[string]*v1.Pod{},
		namespaces: map[string]map[string]string{},
		notInKeys:  map[string]bool{},
	}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		// By way of JSON without a target type, as a client of the API does it: "name: n" is a boolean and refused.
		text, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return nil, err
		}
		if err := c.add(text); err != nil {
			return nil, err
		}
	}
	for _, pod := range c.pods {
		if _, ok := c.namespaces[pod.Namespace]; !ok {
			c.namespaces[pod.Namespace] = map[string]string{}
		}
	}
	// The API server sets this label on every namespace.
	for name, labels := range c.namespaces {
		labels["kubernetes.io/metadata.name"] = name
	}
	c.mend()
	return c, nil
}

func (c *cluster) add(document []byte) error {
	var head struct {
		Kind  string                 `json:"kind"`
		Items []runtime.RawExtension `json:"items"`
	}
	if err := json.Unmarshal(document, &head); err != nil {
		return err
	}
	switch head.Kind {
	case "List", "PodList", "NamespaceList", "NetworkPolicyList":
		for _, item := range head.Items {
			if err := c.add(item.Raw); err != nil {
				return err
			}
		}
	case "Namespace":
		var namespace v1.Namespace
		if err := unmarshalStrict(document, &namespace); err != nil {
			return err
		}
		if namespace.Labels == nil {
			namespace.Labels = map[string]string{}
		}
		c.namespaces[namespace.Name] = namespace.Labels
	case "Pod":
		pod := new(v1.Pod)
		if err := unmarshalStrict(document, pod); err != nil {
			return err
		}
		if pod.Namespace == "" {
			pod.Namespace = v1.NamespaceDefault
		}
		c.pods = append(c.pods, pod)
		c.podByName[pod.Namespace+"/"+pod.Name] = pod
	case "NetworkPolicy":
		policy := new(networkingv1.NetworkPolicy)
		if err := unmarshalStrict(document, policy); err != nil {
			return err
		}
		if policy.APIVersion != "networking.k8s.io/v1" {
			return fmt.Errorf("the matcher knows no NetworkPolicy of %q", policy.APIVersion)
		}
		setDefaults(policy)
		c.policies = append(c.policies, policy)
	}
	return nil
}

func unmarshalStrict(document []byte, into interface{}) error {
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

// setDefaults fills in policyTypes as the API server does before it stores a policy ("If this field is not specified, it
// will default based on the existence of ingress or egress rules"): the matcher panics without.
func setDefaults(policy *networkingv1.NetworkPolicy) {
	if len(policy.Spec.PolicyTypes) > 0 {
		return
	}
	policy.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	if len(policy.Spec.Egress) > 0 {
		policy.Spec.PolicyTypes = append(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	}
}

func (c *cluster) peer(e endpoint) (*matcher.TrafficPeer, error) {
	if e.Pod == "" {
		if e.IP == "" {
			return nil, errors.New("a query names neither a pod nor an address")
		}
		return &matcher.TrafficPeer{IP: e.IP}, nil
	}
	pod, ok := c.podByName[e.Pod]
	if !ok {
		return nil, fmt.Errorf("there is no pod %q", e.Pod)
	}
	peer := c.podPeer(pod)
	if e.IP != "" {
		peer.IP = e.IP
	}
	return peer, nil
}

func (c *cluster) podPeer(pod *v1.Pod) *matcher.TrafficPeer {
	ip := pod.Status.PodIP
	if ip == "" && len(pod.Status.PodIPs) > 0 {
		ip = pod.Status.PodIPs[0].IP
	}
	return &matcher.TrafficPeer{
		IP: ip,
		Internal: &matcher.InternalPeer{
			PodLabels:       pod.Labels,
			NamespaceLabels: c.namespaces[pod.Namespace],
			Namespace:       pod.Namespace,
		},
	}
}

// portNames are the names that a pod gives to a port; none for an address outside the cluster.
func (c *cluster) portNames(e endpoint, protocol string, port int) []string {
	pod, ok := c.podByName[e.Pod]
	if !ok {
		return nil
	}
	return namesOf(pod, protocol, port)
}

func namesOf(pod *v1.Pod, protocol string, port int) []string {
	var names []string
	for _, container := range pod.Spec.Containers {
		for _, p := range container.Ports {
			declared := string(p.Protocol)
			if declared == "" {
				declared = "TCP"
			}
			if p.Name != "" && int(p.ContainerPort) == port && declared == protocol {
				names = append(names, p.Name)
			}
		}
	}
	return names
}
