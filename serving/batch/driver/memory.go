package driver

import "github.com/clary-ml/clary/serving/batch"

// Overhead is what the process has beside the requests: the journal's next part, its copy while it
// is written, rows that are taken apart, the program.
const Overhead = 192 << 20

// leastAnswer is how many bytes any answer may have, however small requests are.
const leastAnswer = 4 << 20

// Memory is how many bytes requests with limits take at most, with answers of the size of a
// request. It takes a while until the engine has let go of one: it has two for each that is sent at a time, and
// two more (serving/batch/DESIGN.md).
func Memory(l batch.Limits) int64 { return places(l) * place(l.Payload, answerTo(l.Payload)) }

func places(l batch.Limits) int64 { return 2*int64(l.Concurrent) + 2 }

// place is what one request takes, on average over those that are sent (the records, what the
// input filter made of them, the answer, and what becomes of both) and those that are not (the
// records, or what became of them and the answer).
func place(payload, answer int64) int64 { return 2*payload + answer + answer/2 }

func answerTo(payload int64) int64 { return max(payload, leastAnswer) }

// Bounded are limits that fit into the memory that the task has, and how large an answer may be
// then. What the user set stays, since the memory is made for it: of what the server wants, requests become
// smaller down to the default, and then fewer. It depends on its arguments alone, and
// changes nothing a second time: an attempt that goes on from another's limits has the same.
func (s Spec) Bounded(l batch.Limits) (fits batch.Limits, answer int64) {
	if s.Memory == 0 { // of a job that was submitted before there was a bound
		return l, batch.DefaultMaxAnswer
	}
	room := func() int64 { return s.Memory / places(l) }
	if s.Limits.Payload == 0 && Memory(l) > s.Memory {
		least := min(l.Payload, batch.Defaults().Payload)
		l.Payload = max(least, min(l.Payload, room()*2/7)) // 3.5 payloads are a place's
	}
	for s.Limits.Concurrent == 0 && l.Concurrent > 1 && Memory(l) > s.Memory {
		l.Concurrent--
	}
	answer = (room() - 2*l.Payload) / 3 * 2
	return l, min(max(answer, answerTo(l.Payload)), batch.DefaultMaxAnswer)
}
