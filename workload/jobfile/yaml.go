package jobfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/clary-ml/clary/cluster"
)

// Limits on what an alias may blow up: the nodes of the whole file, aliases expanded.
const (
	maxNodes = 200_000
	maxDepth = 64
)

// toJSON returns the file as JSON, and the line of each field by its path. A file that
// begins with '{' is JSON already and is passed on as it stands.
func toJSON(data []byte) ([]byte, map[string]int, error) {
	c := converter{lines: map[string]int{}}
	isJSON := bytes.HasPrefix(bytes.TrimSpace(data), []byte("{"))
	root, err := readOne(data)
	if err == nil {
		err = c.convert("", root, 0)
	}
	if isJSON { // JSON's own errors are told by who decodes it; the lines are a bonus
		return data, c.lines, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return c.out.Bytes(), c.lines, nil
}

func readOne(data []byte) (node *yaml.Node, err error) {
	defer func() { // the parser is a stranger's: its panics must not end the program
		if r := recover(); r != nil {
			node, err = nil, single("this is not YAML: %v", r)
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, more yaml.Node
	if err := decoder.Decode(&document); err != nil {
		return nil, yamlError(err)
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, Mistakes{{Line: more.Line, Problem: cluster.Problem{Text: "a second document begins here: a file holds one job"}}}
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, Mistakes{{Line: root.Line, Problem: cluster.Problem{Text: "the file is not a list of fields such as \"name: digits\", see `clary schema`"}}}
	}
	return root, nil
}

var lineOf = regexp.MustCompile(`line (\d+): `)

func yamlError(err error) error {
	if errors.Is(err, io.EOF) {
		return single("the file holds nothing but comments: it takes at least a spec, see `clary schema`")
	}
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if found := lineOf.FindStringSubmatch(text); found != nil {
		line, _ = strconv.Atoi(found[1])
		text = strings.Replace(text, found[0], "", 1)
	}
	return Mistakes{{Line: line, Problem: cluster.Problem{Text: "this is not YAML: " + text}}}
}

// converter writes a YAML tree as JSON, keeping every key, so that one that is there
// twice is still seen by who decodes the JSON.
type converter struct {
	out   bytes.Buffer
	lines map[string]int
	nodes int
}

func (c *converter) convert(path string, node *yaml.Node, depth int) error {
	if c.nodes++; c.nodes > maxNodes || depth > maxDepth {
		return mistake(node, path, "the file is too large or too deep, aliases expanded: at most %d values, %d deep", maxNodes, maxDepth)
	}
	if _, seen := c.lines[path]; !seen {
		c.lines[path] = node.Line
	}
	switch node.Kind {
	case yaml.AliasNode:
		return c.convert(path, node.Alias, depth+1)
	case yaml.MappingNode:
		return c.mapping(path, node, depth)
	case yaml.SequenceNode:
		c.out.WriteByte('[')
		for i, item := range node.Content {
			if i > 0 {
				c.out.WriteByte(',')
			}
			if err := c.convert(fmt.Sprintf("%s[%d]", path, i), item, depth+1); err != nil {
				return err
			}
		}
		c.out.WriteByte(']')
		return nil
	default:
		return c.scalar(path, node)
	}
}

func (c *converter) mapping(path string, node *yaml.Node, depth int) error {
	c.out.WriteByte('{')
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return mistake(key, path, "a field's name is a word, not a list or an alias")
		}
		if key.Tag == "!!merge" {
			return mistake(key, path, "merging with << is not supported: repeat the fields")
		}
		at := key.Value
		if path != "" {
			at = path + "." + key.Value
		}
		if _, seen := c.lines[at]; !seen {
			c.lines[at] = key.Line
		}
		if i > 0 {
			c.out.WriteByte(',')
		}
		c.text(key.Value)
		c.out.WriteByte(':')
		if err := c.convert(at, value, depth+1); err != nil {
			return err
		}
	}
	c.out.WriteByte('}')
	return nil
}

func (c *converter) scalar(path string, node *yaml.Node) error {
	switch node.Tag {
	case "!!null":
		c.out.WriteString("null")
	case "!!bool":
		var value bool
		if err := node.Decode(&value); err != nil {
			return mistake(node, path, "%q is neither true nor false", cluster.Clip(node.Value))
		}
		c.out.WriteString(strconv.FormatBool(value))
	case "!!int", "!!float":
		return c.number(path, node)
	case "!!str", "!!timestamp":
		c.text(node.Value)
	default:
		return mistake(node, path, "the YAML tag %s is not supported: write a text, a number, true or false", cluster.Clip(node.Tag))
	}
	return nil
}

// number keeps the digits as they were written where JSON has the same, so that nothing
// is rounded on the way.
func (c *converter) number(path string, node *yaml.Node) error {
	if json.Valid([]byte(node.Value)) {
		c.out.WriteString(node.Value)
		return nil
	}
	var value any
	if err := node.Decode(&value); err != nil {
		return mistake(node, path, "%q is not a number", cluster.Clip(node.Value))
	}
	text, err := json.Marshal(value)
	if err != nil { // infinity, not a number
		return mistake(node, path, "%q is not a number that can be used here", cluster.Clip(node.Value))
	}
	c.out.Write(text)
	return nil
}

func (c *converter) text(value string) {
	text, _ := json.Marshal(value) // a string can always be written
	c.out.Write(text)
}

func mistake(node *yaml.Node, path, format string, args ...any) error {
	return Mistakes{{Line: node.Line, Problem: cluster.Problem{Field: path, Text: fmt.Sprintf(format, args...)}}}
}
