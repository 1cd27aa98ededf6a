package reward

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/zeebo/xxh3"

	"github.com/clary-ml/clary/internal/fault"
)

// IDs makes names of inferences: VARIANT.GENERATION.UNIQUE. What a reward is counted for is read
// from the name, so that no router has to remember what it answered.
//
// The generation is in base 36; the unique part is 12 bytes and a checksum over the endpoint's name
// and all before it, so that a name that was cut or belongs to another endpoint is noticed. It is no
// signature: who may ask an endpoint may make one up, as he may make up a reward.
type IDs struct {
	process [6]byte
	made    atomic.Uint64
}

// The unique part: of the process, a counter, and the checksum, in base64.
const (
	counterBytes = 6
	uniqueBytes  = 6 + counterBytes
	checkBytes   = 6
	uniqueText   = (uniqueBytes + checkBytes) * 4 / 3
)

var text = base64.RawURLEncoding

// NewIDs makes a maker of names that are its own: of two, none makes what the other does.
func NewIDs() *IDs {
	ids := &IDs{}
	var seed [8]byte
	_, _ = rand.Read(ids.process[:]) // it does not fail
	_, _ = rand.Read(seed[:])
	ids.made.Store(binary.LittleEndian.Uint64(seed[:]))
	return ids
}

// Append writes the name of an inference behind what is there.
func (ids *IDs) Append(to []byte, endpoint, variant string, generation int64) []byte {
	begin := len(to)
	to = append(append(to, variant...), '.')
	to = append(strconv.AppendInt(to, generation, 36), '.')
	var unique [uniqueBytes + checkBytes]byte
	copy(unique[:], ids.process[:])
	var counter [8]byte
	binary.LittleEndian.PutUint64(counter[:], ids.made.Add(1))
	copy(unique[len(ids.process):], counter[:counterBytes])
	check := checksum(endpoint, to[begin:], unique[:uniqueBytes])
	copy(unique[uniqueBytes:], check[:])
	return text.AppendEncode(to, unique[:])
}

// New is the name of an inference.
func (ids *IDs) New(endpoint, variant string, generation int64) string {
	return string(ids.Append(make([]byte, 0, len(variant)+uniqueText+16), endpoint, variant, generation))
}

func checksum(endpoint string, front, unique []byte) (check [checkBytes]byte) {
	sum := xxh3.HashSeed(unique, xxh3.HashSeed(front, xxh3.HashString(endpoint)))
	var all [8]byte
	binary.LittleEndian.PutUint64(all[:], sum)
	copy(check[:], all[:])
	return check
}

// Parse reads the variant and the generation from the name of an inference of an endpoint. It says
// no of every other text.
func Parse(endpoint, id string) (variant string, generation int64, ok bool) {
	front, last, ok := cutLast(id)
	if !ok || len(last) != uniqueText {
		return "", 0, false
	}
	variant, number, ok := cutLast(front)
	if !ok || variant == "" {
		return "", 0, false
	}
	generation, err := strconv.ParseInt(number, 36, 64)
	if err != nil || generation < 0 || strconv.FormatInt(generation, 36) != number {
		return "", 0, false
	}
	unique, err := text.DecodeString(last)
	if err != nil || len(unique) != uniqueBytes+checkBytes { // the decoder passes over ends of lines
		return "", 0, false
	}
	if checksum(endpoint, []byte(front+"."), unique[:uniqueBytes]) != [checkBytes]byte(unique[uniqueBytes:]) {
		return "", 0, false
	}
	return variant, generation, true
}

func cutLast(s string) (before, after string, found bool) {
	at := strings.LastIndexByte(s, '.')
	if at < 0 {
		return "", "", false
	}
	return s[:at], s[at+1:], true
}

// MaxOwn is the most characters of a name that a client gives an inference.
const MaxOwn = 64

// CheckOwn refuses what a client may not name an inference: it is as SageMaker has it, up to 64
// characters of ASCII, and all of them can be seen.
func CheckOwn(id string) error {
	ok := len(id) > 0 && len(id) <= MaxOwn
	for i := range len(id) {
		ok = ok && id[i] > ' ' && id[i] < 0x7f
	}
	if !ok {
		return fault.New(fault.Invalid, "inference id %q: give 1 to %d visible characters of ASCII", shortened(id), MaxOwn)
	}
	return nil
}

func shortened(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
