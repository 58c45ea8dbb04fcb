// Package flow holds the machines that decide how fast to go: Limiter (how many requests an endpoint
// takes, and at what rate), Outage (whether it is there at all), Governor (how
// far a source may be loaded), Throttles (who wishes that something go slower), Pacer (a rate). All are pure: now and rand are handed in, there is no goroutine and no lock.
//
// Start at limiter.go. A round is about a round trip. A cut makes window and pace smaller, at most once a
// round; a hold follows, in which the window grows back to what is known to work and no further;
// then steps up, 4 % first and doubling while they stay clean, until the next cut. A step that fails
// goes back to what was good before it.
//
// Sources: TCP's slow start and one cut per window; Vector's adaptive request concurrency (latency against
// its mean and deviation), here by size of request; BBR's idea of pacing by what was delivered, and
// Little's law for the window.
//
// What was tried in the simulation (sim_test.go), and why it is as it is:
//
//   - Window alone: saws between half and all of the capacity, and cannot obey a token bucket whose rate
//     is below one request per round trip. So there is a pace beside it.
//
//   - The pace alone after a cut: a server that counts concurrent requests needs none, and pacing it at 95 %
//     of what was delivered ratcheted throughput down to 70 %. So a cut with a full window paces loosely
//     (125 %), one during the hold at 100 or 95 %.
//
//   - Going back to what was measured when a step up fails: what is measured while growing lies below what
//     is possible; throughput fell to half. So a failed step goes back to the step before it.
//
//   - Judging latency by each round: rounds of one request are noise, and cut each time until nothing
//     was left. So rounds are judged by at least 16 samples, never when one request is the limit, and only
//     when work waited for room.
//
//   - A mean that follows at once: it follows the queue too, and the window drifts up to its maximum. Mean that
//     doubts single slow samples: a long tail is its mean. So it follows 16 times slower while samples
//     as a whole are unusual.
//
//   - Holds longer than 5 s find returned capacity too late; shorter ones cost small servers more than 2 % of
//     their requests.
//
//   - The usual alone: where a queue grows slowly it follows, and in the end all of the queue times out. So once
//     something timed out, half of that time is too long, unless requests take as long when few are sent; and a step
//     up waits for as long (at most 1.1 s), as that is when one learns that it was too far.
//
//   - A pace after every cut: where only latency rose, the moment's rate was taken for what is possible; to a receiver
//     on the same busy machine that cost up to half of the throughput. The window alone settles as well there.
//
//   - Pacing slower after each failed step: where the step made the window larger, the window was it; the pace went
//     down 3 % each time and never came back. So then it stays.
//
// Measured with eleven kinds of servers (token bucket, concurrency, queue, exponential service, timeouts, drops, few
// workers, sizes from 1 to 100), 40 seeds of each: see TestCapacityFallsAndReturns. 10 s after each change the mean is
// within 15 % of capacity and at most 2 % of requests fail. Known limits: 1 of 100 runs against a bucket of about
// 30 requests per second lost 2.2 %; where the endpoint counts concurrent requests, single seconds fall to 75 % of
// capacity; where it drops without an answer what is too much, a step too far costs most of the second until that
// times out.
package flow
