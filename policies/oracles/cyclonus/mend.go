package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Two defects of cyclonus v0.5.6 (pkg/kube/labelselector.go) would drown every other difference, so that selectors and
// labels are rewritten to equivalent ones that it reads as the API defines them:
//
//   - NotIn does not match a label that is absent. Labels and selectors: "environment!=…, tier notin (frontend, backend) …
//     selects all resources with key equal to tier and values other than frontend and backend, and all resources with no
//     labels with the tier key". Each key used with NotIn gets a shadow that every object has.
//   - matchLabels with an empty value matches a label that is absent. It becomes In [""].

const (
	shadowSuffix = " or absent"
	// No label value may hold a NUL.
	absent = "\x00"
)

func (c *cluster) mend() {
	for _, policy := range c.policies {
		c.mendSelector(&policy.Spec.PodSelector)
		for i := range policy.Spec.Ingress {
			for j := range policy.Spec.Ingress[i].From {
				c.mendSelector(policy.Spec.Ingress[i].From[j].PodSelector)
				c.mendSelector(policy.Spec.Ingress[i].From[j].NamespaceSelector)
			}
		}
		for i := range policy.Spec.Egress {
			for j := range policy.Spec.Egress[i].To {
				c.mendSelector(policy.Spec.Egress[i].To[j].PodSelector)
				c.mendSelector(policy.Spec.Egress[i].To[j].NamespaceSelector)
			}
		}
	}
	for _, pod := range c.pods {
		if pod.Labels == nil {
			pod.Labels = map[string]string{}
		}
		c.addShadows(pod.Labels)
	}
	for _, labels := range c.namespaces {
		c.addShadows(labels)
	}
}

func (c *cluster) mendSelector(selector *metav1.LabelSelector) {
	if selector == nil {
		return
	}
	for i, requirement := range selector.MatchExpressions {
		if requirement.Operator == metav1.LabelSelectorOpNotIn {
			c.notInKeys[requirement.Key] = true
			selector.MatchExpressions[i].Key = requirement.Key + shadowSuffix
		}
	}
	for key, value := range selector.MatchLabels {
		if value == "" {
			delete(selector.MatchLabels, key)
			selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{""},
			})
		}
	}
}

func (c *cluster) addShadows(labels map[string]string) {
	for key := range c.notInKeys {
		if value, ok := labels[key]; ok {
			labels[key+shadowSuffix] = value
		} else {
			labels[key+shadowSuffix] = absent
		}
	}
}
