// Package sched decides who goes next when not all can: subscriptions, and replays beside them, that share the
// CPU of one process.
//
// Terms. A lane is one that competes. It wants a number of grants; a grant is the right to encode and send one
// Delivery. A cost is what a grant used, in nanoseconds of CPU: see Cost; it is measured, so it is known after
// the fact, and until then what the lane's grants cost on average stands in for it.
//
// [Scheduler] is pure: now is handed in, there is no goroutine and no lock. [Gate] makes it safe for many
// goroutines and lets it decide only while all slots are taken: otherwise whoever asks gets.
//
// Who goes next, in this order:
//   - Age: each eighth grant goes to the lane that waits longest, when that is longer than Patience. So no lane
//     waits longer than Patience and eight grants for each lane, whatever its class and its debts.
//   - Class: critical, high, normal and low get shares of 8 : 4 : 2 : 1 of the cost at least, both as classes and
//     lane by lane. By class alone, one low lane got more than each of many normal ones; by lane alone, one critical
//     lane was lost among many normal ones.
//   - Kind: within a class what is live goes before what catches up, and that before replays; each that wants
//     gets 5 % of its class's cost.
//   - Lane: within a kind all get the same cost.
//
// Beside what is live, replays go in the gaps only, well below saturation too: see gaps.go.
//
// Classes and lanes go by deficit round robin, with debts: a turn ends when the balance is below zero, and a turn
// begins by a quantum, so that the mean number of looks at a lane per grant is two, however many lanes there are.
// A lane that wants something for the first time in a while goes before those that always do, once.
//
// Sources: M. Shreedhar, G. Varghese, Efficient Fair Queuing using Deficit Round Robin (1996), for the shares;
// H. Adiseshu and others, A Reliable and Scalable Striping Protocol (1996), for charging after the fact;
// RFC 8290 (FQ-CoDel), for letting new lanes go first, once.
package sched
