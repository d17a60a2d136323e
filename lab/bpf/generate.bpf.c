// SPDX-License-Identifier: Apache-2.0
/*
 * The generator: run over and over by BPF_PROG_TEST_RUN with live frames, each run makes one datagram and hands it to
 * the interface that its slot names, or gives the frame back when none is due yet.
 *
 * A frame's page comes back as its last receiver left it, so every byte of header and stamp is written each time.
 * What lies behind the stamp is never written by anyone and stays as the lab filled it in.
 *
 * One thread runs this on one CPU: nothing here is atomic.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "stamp.h"

#define MAX_SLOTS (1 << 17)

/* The schedule, and what came of it; lab/traffic/send/live.py has the same. Times are nanoseconds. */
struct control {
	__u64 slots;         /* in use */
	__u64 burst;         /* datagrams of one slot that leave together */
	__u64 bursts;        /* to send in all */
	__u64 duration;      /* ends after this, however many were sent */
	__u64 step;          /* between two bursts, in 1/65536 ns; 0: as fast as possible */
	__u64 rate_from;     /* with a ramp, instead of "step": bursts a second at the beginning, */
	__u64 rate_to;       /* and after "ramp"; 0: no ramp */
	__u64 ramp;
	__u64 slack;         /* a generator that is later than this does not catch up: its schedule moves */
	__u64 to_realtime;   /* CLOCK_REALTIME less CLOCK_MONOTONIC */
	/* written by the program */
	__u64 started;       /* CLOCK_MONOTONIC of the first run, 0 before it */
	__u64 ended;         /* the same, when nothing was left to do; 0 before */
	__u64 due;           /* the next burst, in 1/65536 ns after "started" */
	__u64 sent;          /* bursts begun */
	__u64 slot;          /* the next datagram's */
	__u64 in_burst;      /* its place in the burst */
	__u64 rounds;        /* how often all slots have had their turn */
	__u64 late_sum, late_max, slipped;
};

/* One datagram of a turn: its headers as they go out, and what the UDP checksum comes from for sequence 0; 0: it has
 * none. */
struct slot {
	__u8 header[48];
	__u32 sum;
	__u32 stream;
	__u32 before;        /* slots of the same stream in front of this one */
	__u32 of_stream;     /* slots of the same stream in all */
	__u32 interface;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* Bursts a second, "elapsed" after the beginning; at least one. */
static __always_inline __u64 ramp_rate(struct control *run, __u64 elapsed)
{
	__u64 from = run->rate_from, to = run->rate_to, rate = to;
	if (elapsed < run->ramp) {
		if (to > from)
			rate = from + (to - from) * elapsed / run->ramp;
		else
			rate = from - (from - to) * elapsed / run->ramp;
	}
	return rate ? rate : 1;
}

SEC("xdp")
int generate(struct xdp_md *context)
{
	__u32 zero = 0, at;
	struct control *run = bpf_map_lookup_elem(&control, &zero);
	if (!run || run->ended)
		return XDP_DROP;

	__u64 now = bpf_ktime_get_ns();
	if (!run->started)
		run->started = now;
	if (!run->in_burst) {
		__u64 elapsed = now - run->started, step = run->step;
		if (run->sent >= run->bursts || elapsed >= run->duration) {
			run->ended = now;
			return XDP_DROP;
		}
		__u64 due = run->due >> 16;
		if ((step || run->rate_to) && elapsed < due)
			return XDP_DROP;
		if (run->rate_to)
			step = (1000000000ull << 16) / ramp_rate(run, elapsed);
		if (step) {
			__u64 late = elapsed - due;
			run->late_sum += late;
			if (late > run->late_max)
				run->late_max = late;
			if (late > run->slack) {
				run->slipped += late - run->slack;
				run->due += (late - run->slack) << 16;
			}
			run->due += step;
		}
		run->sent++;
	}

	at = run->slot;
	struct slot *one = bpf_map_lookup_elem(&slots, &at);
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	if (!one || data + HEADER_BYTES + sizeof(struct stamp) > end)
		return XDP_ABORTED;

	__u32 sequence = (run->rounds * one->of_stream + one->before) * run->burst + run->in_burst;
	__u32 low = sequence & 0xFFFF;
	__u64 time = now + run->to_realtime;
	__u64 *to = data, *from = (__u64 *)one->header;
	for (int i = 0; i < HEADER_BYTES / 8; i++)
		to[i] = from[i];
	__u32 checksum = fold((__u64)one->sum + 0xFFFF - low) ^ 0xFFFF;
	if (one->sum)
		checksum = checksum ? checksum : 0xFFFF;
	else
		checksum = 0;
	*(__be16 *)(data + HEADER_BYTES - 2) = bpf_htons(checksum); /* the 42 bytes' last two */

	struct stamp *stamp = data + HEADER_BYTES;
	stamp->magic = bpf_htons(MAGIC);
	stamp->stream = bpf_htons(one->stream);
	stamp->sequence = bpf_htonl(sequence);
	stamp->time = bpf_cpu_to_be64(time);
	stamp->check = bpf_htons(fold(stamp_sum(one->stream, sequence, time)) ^ 0xFFFF);

	if (++run->in_burst >= run->burst) {
		run->in_burst = 0;
		if (++run->slot >= run->slots) {
			run->slot = 0;
			run->rounds++;
		}
	}
	return bpf_redirect(one->interface, 0);
}

char licence[] SEC("license") = "Apache-2.0";
char source_digest[] SEC("source") = SOURCE_DIGEST;
