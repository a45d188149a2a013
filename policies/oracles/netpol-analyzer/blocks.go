package main

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/resource"
)

// podsInBlocks are the pods, as "namespace/name", with an address that some ipBlock of some policy covers.
func podsInBlocks(infos []*resource.Info) map[string]bool {
	var blocks []netip.Prefix
	addresses := map[string][]netip.Addr{}
	for _, info := range infos {
		object, ok := info.Object.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		switch object.GetKind() {
		case "NetworkPolicy":
			blocks = append(blocks, blocksOf(object.Object)...)
		case "Pod":
			name := object.GetNamespace() + "/" + object.GetName()
			entries, _, _ := unstructured.NestedSlice(object.Object, "status", "podIPs")
			for _, entry := range entries {
				fields, _ := entry.(map[string]interface{})
				text, _ := fields["ip"].(string)
				if address, err := netip.ParseAddr(text); err == nil {
					addresses[name] = append(addresses[name], address)
				}
			}
		}
	}
	covered := map[string]bool{}
	for name, list := range addresses {
		for _, address := range list {
			for _, block := range blocks {
				covered[name] = covered[name] || block.Contains(address)
			}
		}
	}
	return covered
}

func blocksOf(value interface{}) []netip.Prefix {
	var blocks []netip.Prefix
	switch value := value.(type) {
	case map[string]interface{}:
		if text, ok := value["cidr"].(string); ok {
			if block, err := netip.ParsePrefix(text); err == nil {
				blocks = append(blocks, block)
			}
		}
		for _, inner := range value {
			blocks = append(blocks, blocksOf(inner)...)
		}
	case []interface{}:
		for _, inner := range value {
			blocks = append(blocks, blocksOf(inner)...)
		}
	}
	return blocks
}
