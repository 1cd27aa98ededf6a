package expr

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenNumber
	tokenText
	tokenName   // may be a word of the language
	tokenQuoted // a name in backquotes: never a word of the language
	tokenSign
)

type token struct {
	kind   tokenKind
	text   string
	number float64
	column int // 1-based, in bytes
}

func (t token) is(sign string) bool {
	return t.text == sign && (t.kind == tokenSign || t.kind == tokenName)
}

// String is how a message names the token.
func (t token) String() string {
	if t.kind == tokenEnd {
		return "the end"
	}
	return strconv.Quote(t.text)
}

// signs, longest first, with the spelling that the parser knows.
var signs = []struct{ text, means string }{
	{"<=", "<="},
	{">=", ">="},
	{"==", "=="},
	{"!=", "!="},
	{"&&", "and"},
	{"||", "or"},
	{"**", "^"},
	{"<", "<"},
	{">", ">"},
	{"!", "not"},
	{"+", "+"},
	{"-", "-"},
	{"*", "*"},
	{"/", "/"},
	{"%", "%"},
	{"^", "^"},
	{"(", "("},
	{")", ")"},
	{"[", "["},
	{"]", "]"},
	{",", ","},
}

func lex(text string) ([]token, error) {
	var tokens []token
	for at := 0; at < len(text); {
		if strings.IndexByte(" \t\r\n", text[at]) >= 0 {
			at++
			continue
		}
		t, length, err := next(text[at:], at+1)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, t)
		at += length
	}
	return append(tokens, token{kind: tokenEnd, column: len(text) + 1}), nil
}

func next(rest string, column int) (t token, length int, err error) {
	t.column = column
	switch c := rest[0]; {
	case c >= '0' && c <= '9', c == '.' && len(rest) > 1 && isDigit(rest[1]):
		return number(rest, column)
	case isLetter(c):
		for length = 1; length < len(rest) && (isLetter(rest[length]) || isDigit(rest[length]) || rest[length] == '.'); length++ {
		}
		t.kind, t.text = tokenName, rest[:length]
		return t, length, nil
	case c == '\'' || c == '"' || c == '`':
		end := strings.IndexByte(rest[1:], c)
		if end < 0 {
			return t, 0, fmt.Errorf("column %d: the quote %c is not closed", column, c)
		}
		t.kind, t.text = tokenText, rest[1:1+end]
		if c == '`' {
			t.kind = tokenQuoted
		}
		return t, end + 2, nil
	}
	for _, sign := range signs {
		if strings.HasPrefix(rest, sign.text) {
			t.kind, t.text = tokenSign, sign.means
			return t, len(sign.text), nil
		}
	}
	if rest[0] == '=' {
		return t, 0, fmt.Errorf("column %d: \"=\" is no comparison: write ==", column)
	}
	r, _ := utf8.DecodeRuneInString(rest)
	return t, 0, fmt.Errorf("column %d: %q means nothing here", column, r)
}

func number(rest string, column int) (token, int, error) {
	length := 0
	digits := func() {
		for length < len(rest) && isDigit(rest[length]) {
			length++
		}
	}
	digits()
	if length < len(rest) && rest[length] == '.' {
		length++
		digits()
	}
	if length < len(rest) && (rest[length] == 'e' || rest[length] == 'E') {
		length++
		if length < len(rest) && (rest[length] == '+' || rest[length] == '-') {
			length++
		}
		digits()
	}
	f, err := strconv.ParseFloat(rest[:length], 64)
	if err != nil || length < len(rest) && isLetter(rest[length]) {
		return token{}, 0, fmt.Errorf("column %d: %q is not a number", column, rest[:min(length+1, len(rest))])
	}
	return token{kind: tokenNumber, text: rest[:length], number: f, column: column}, length, nil
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
