// Package expr is the small language of constraints between parameters, such as
// `depth * width <= 4096` or `optimizer == 'adam' or momentum < 1 - lr`.
//
// It is total: every expression that Parse accepts has a value for every assignment, in
// time proportional to its length. There are no loops, no definitions and nothing from
// outside. Arithmetic is IEEE 754; a comparison with something that is not a number
// (0/0, log(-1)) does not hold.
//
//	truth    = all { "or" all }
//	all      = not { "and" not }
//	not      = "not" not | relation
//	relation = sum [ ("<" | "<=" | ">" | ">=" | "==" | "!=") sum | ["not"] "in" "[" sum { "," sum } "]" ]
//	sum      = product { ("+" | "-") product }
//	product  = sign { ("*" | "/" | "%") sign }
//	sign     = "-" sign | power
//	power    = atom [ "^" sign ]
//	atom     = number | text | "true" | "false" | name | function "(" sum { "," sum } ")" | "(" truth ")"
//
// Texts stand in single or double quotes. A name that is not letters, digits, '_' and '.'
// stands in backquotes: `learning-rate`. "&&", "||", "!" and "**" are other spellings of
// and, or, not and "^". The functions are abs, ceil, exp, floor, log, log10, log2, max, min,
// round and sqrt.
package expr
