package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
)

// fileValue is a setting as a file has it.
type fileValue struct {
	key, text string
	fault     string // why it has no text
}

// fileValues gives what stands in a YAML file, in its order. A value is taken as it is written: a token of digits with a
// leading zero is not a number whose zero goes.
func fileValues(raw []byte) ([]fileValue, error) {
	// Into plain values first: that refuses what is not YAML, a key that stands there twice, and aliases that blow up.
	var plain map[string]any
	if err := yaml.Unmarshal(raw, &plain); err != nil {
		return nil, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var doc, next yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	if err := dec.Decode(&next); !errors.Is(err, io.EOF) {
		return nil, errors.New("is more than one YAML document")
	}
	var values []fileValue
	if len(doc.Content) > 0 {
		flatten("", doc.Content[0], &values)
	}
	return values, nil
}

func flatten(at string, n *yaml.Node, into *[]fileValue) {
	switch n.Kind {
	case yaml.AliasNode:
		flatten(at, n.Alias, into)
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			switch {
			case k.Tag == "!!merge":
				*into = append(*into, fileValue{key: strings.TrimPrefix(at+".<<", "."), fault: "is not known here"})
			case at == "":
				flatten(k.Value, n.Content[i+1], into)
			default:
				flatten(at+"."+k.Value, n.Content[i+1], into)
			}
		}
	case yaml.SequenceNode:
		v := fileValue{key: at}
		parts := make([]string, len(n.Content))
		for i, p := range n.Content {
			if p.Kind == yaml.AliasNode {
				p = p.Alias
			}
			if parts[i] = p.Value; p.Kind != yaml.ScalarNode || p.ShortTag() == "!!null" {
				v.fault = fmt.Sprintf("has a part %d that is no value", i+1)
			}
		}
		v.text = strings.Join(parts, ",")
		*into = append(*into, v)
	case yaml.ScalarNode:
		v := fileValue{key: at, text: n.Value}
		if n.ShortTag() == "!!null" {
			if at == "" {
				return // a file of nothing
			}
			v.fault = `has no value; "" is an empty one`
		}
		*into = append(*into, v)
	}
}
