// SPDX-License-Identifier: Apache-2.0
/*
 * The counting receiver: at an interface's ingress, checks each datagram as lab/traffic/receive/check.py does one of which a
 * ring kept headers and stamp, and lets it go no further. lab/traffic/receive/count.py lays out the arrays and reads them.
 *
 * Any number of CPUs may run this at the same time. What each counts for itself is in rows of its own; atomic are the
 * two steps that say which copy of a datagram came first, and what seldom happens.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "stamp.h"

#define CHECKED 60 /* headers and stamp */
#define PROTOCOL_END 24 /* up to IPv4's protocol */
#define GROUP_END 31 /* up to the first octet of the destination */
#define IPV4 0x0800
#define UDP 17
#define MULTICAST 14 /* upper four bits of the destination */
#define FRAGMENT 0x3FFF
#define ORDINARY 0x45 /* IPv4, no options: with options the stamp would not be where it is looked for */
#define MOST_COPIES 255
#define SAME_STREAM 64 /* flows of one stream at one interface, at most */
#define TRIES 64
#define HIGHEST_NS 60000000000ULL
#define HALF_BITS 10 /* of the HDR histogram, as in check.py */

/* Of newer headers (Linux 6.6). */
#define TCX_NEXT (-1)
#define TCX_DROP 2

struct control {
	__u64 payload_bytes; /* of each datagram, 0: any */
	__u64 unicast;       /* take UDP to any address */
	__u64 to_realtime;   /* CLOCK_REALTIME less CLOCK_MONOTONIC */
	__u64 lowest;        /* interface index that is first in "interfaces" */
	__u64 flows;         /* in one CPU's rows of "latencies" */
	__u64 buckets;       /* in one CPU's row of "histogram" */
	__u64 untimed;       /* of a sequence number, the bits that are 0 where the clock is read; 0: always */
};

struct interface {
	__u32 first;         /* row of "flows" for the stream "low", which the next streams follow */
	__u32 low, streams;
	__u32 unused;
	__u64 unread;        /* frames that could not be looked at */
};

struct flow {
	__u64 key;           /* group, port, stream; KNOWN unless the row is empty */
	__u32 number;
	__u32 next;          /* row of another flow of the same stream and interface, 0: none */
	__u32 sequences;
	__u32 start;         /* in bytes of "copies", a multiple of 4 */
	__u32 next_expected;
	__u32 unused;
	__u64 duplicated, reordered, corrupted;
	__u64 line;          /* one row, one line of the cache */
};
#define KNOWN (1ULL << 63)

/* Of one flow on one CPU; latencies of first copies, nanoseconds, "lowest" 0 for none. */
struct latency {
	__u64 bytes, lowest, highest, sum;
};

/* Of one CPU. */
struct total {
	__u64 frames, unexpected, malformed, negative, first, last;
	__u64 unused[2];
};

#define ARRAY(name, kind)                              \
	struct {                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);      \
		__uint(map_flags, BPF_F_MMAPABLE);     \
		__uint(max_entries, 1);                \
		__type(key, __u32);                    \
		__type(value, kind);                   \
	} name SEC(".maps")

ARRAY(control, struct control);
ARRAY(interfaces, struct interface);
ARRAY(flows, struct flow);
ARRAY(latencies, struct latency);
ARRAY(totals, struct total);
ARRAY(histogram, __u64);
ARRAY(copies, __u64); /* a byte for each sequence number: intact copies, MOST_COPIES standing for more */

static __always_inline void *at(void *array, __u32 index)
{
	return bpf_map_lookup_elem(array, &index);
}

/* Row of the histogram, as hdrh's counts_index_for. */
static __always_inline __u32 bucket_of(__u64 value)
{
	__u32 shift = 0;
	__u64 top = value >> (HALF_BITS + 1);
	if (top >> 16) { shift += 16; top >>= 16; }
	if (top >> 8) { shift += 8; top >>= 8; }
	if (top >> 4) { shift += 4; top >>= 4; }
	if (top >> 2) { shift += 2; top >>= 2; }
	if (top >> 1) { shift += 1; top >>= 1; }
	shift += top;
	return (shift << HALF_BITS) + (value >> shift);
}

static __always_inline void record(struct control *run, struct total *total, struct latency *row, __u32 cpu,
				   __s64 latency, bool multicast)
{
	if (latency < 0) {
		total->negative++;
		return;
	}
	__u64 value = latency;
	if (!row->lowest || value < row->lowest)
		row->lowest = value;
	if (value > row->highest)
		row->highest = value;
	row->sum += value;
	if (!multicast)
		return;
	__u64 *count = at(&histogram, cpu * run->buckets + bucket_of(value < HIGHEST_NS ? value : HIGHEST_NS));
	if (count)
		++*count;
}

/* One more intact copy of a sequence number; whether it is the first. */
static __always_inline bool first_copy(struct flow *flow, __u32 sequence)
{
	__u32 byte = flow->start + sequence, shift = 8 * (byte & 3);
	__u32 *word = at(&copies, byte >> 3);
	if (!word)
		return false;
	word += (byte >> 2) & 1;
	/* A byte that is full stays so: another one would carry into the next. */
	if (((*word >> shift) & 0xFF) == MOST_COPIES)
		return false;
	return !((__sync_fetch_and_add(word, 1U << shift) >> shift) & 0xFF);
}

/* RFC 4737: of first copies, those below one above the highest so far. Never moved back by a CPU that comes late. */
static __always_inline bool in_order(struct flow *flow, __u32 sequence)
{
	__u32 expected = *(volatile __u32 *)&flow->next_expected;
	for (int i = 0; i < TRIES; i++) {
		if (sequence < expected)
			return false;
		__u32 seen = __sync_val_compare_and_swap(&flow->next_expected, expected, sequence + 1);
		if (seen == expected)
			break;
		expected = seen;
	}
	return true;
}

static __always_inline struct flow *find(struct interface *interface, __u64 key, __u32 stream)
{
	if (stream - interface->low >= interface->streams)
		return 0;
	__u32 row = interface->first + stream - interface->low;
	for (int i = 0; i < SAME_STREAM; i++) {
		struct flow *flow = at(&flows, row);
		if (!flow || flow->key == key)
			return flow;
		row = flow->next;
		if (!row)
			return 0;
	}
	return 0;
}

/* The time, CLOCK_REALTIME: first or last so far. */
static __always_inline __u64 arrival(struct control *run, struct total *total)
{
	__u64 now = bpf_ktime_get_ns() + run->to_realtime;
	total->last = now;
	if (!total->first)
		total->first = now;
	return now;
}

/* Check a frame of "length" bytes, of which those up to "end" can be read: all, or at least CHECKED. Whether it is one
 * that a receiver takes. */
static __always_inline bool check(void *data, void *end, __u32 length, __u32 ifindex)
{
	__u8 *frame = data;
	struct control *run = at(&control, 0);
	if (!run || data + PROTOCOL_END > end || *(__be16 *)(frame + 12) != bpf_htons(IPV4) || frame[23] != UDP)
		return false;
	bool multicast = data + GROUP_END <= end && frame[30] >> 4 == MULTICAST;
	if (!multicast && !run->unicast)
		return false;
	__u32 cpu = bpf_get_smp_processor_id();
	struct interface *interface = at(&interfaces, ifindex - run->lowest);
	struct total *total = at(&totals, cpu);
	if (!interface || !total)
		return false;

	__u64 now = run->untimed ? 0 : arrival(run, total);
	total->frames++;
	if (data + CHECKED > end) {
		total->malformed++; /* no room for a stamp */
		return true;
	}

	/* Sums of 16-bit words in any order of bytes and in any number of bits come to the same once folded. */
	__u64 ip = *(__u64 *)(frame + 14), rest = *(__u64 *)(frame + 22);
	__u32 group = *(__u32 *)(frame + 30);
	__u32 bytes = bpf_ntohs(*(__be16 *)(frame + 16)), udp_bytes = bpf_ntohs(*(__be16 *)(frame + 38));
	__u64 sum = (ip & 0xFFFFFFFF) + (ip >> 32) + (rest & 0xFFFFFFFF) + (rest >> 32) + group;
	__u64 head = bpf_be64_to_cpu(*(__u64 *)(frame + 42)), time = bpf_be64_to_cpu(*(__u64 *)(frame + 50));
	__u32 stream = (head >> 32) & 0xFFFF, sequence = head, stamped = bpf_ntohs(*(__be16 *)(frame + 58));
	if (frame[14] != ORDINARY || bytes + 14 > length || bytes < CHECKED - 14 || udp_bytes != bytes - 20 ||
	    (*(__be16 *)(frame + 20) & bpf_htons(FRAGMENT)) || fold(sum) != 0xFFFF || head >> 48 != MAGIC ||
	    fold(stamp_sum(stream, sequence, time) + stamped) != 0xFFFF) {
		total->malformed++;
		return true;
	}

	__u64 key = (bpf_ntohl(group) & 0x0FFFFFFFULL) << 32 |
		    (__u32)bpf_ntohs(*(__be16 *)(frame + 36)) << 16 | stream | KNOWN;
	struct flow *flow = find(interface, key, stream);
	if (!flow) {
		total->unexpected++;
		return true;
	}
	__u32 payload_bytes = udp_bytes - 8;
	if (sequence >= flow->sequences || (run->payload_bytes && payload_bytes != run->payload_bytes)) {
		__sync_fetch_and_add(&flow->corrupted, 1);
		return true;
	}
	struct latency *row = at(&latencies, cpu * run->flows + flow->number);
	if (!row)
		return true;
	row->bytes += payload_bytes;
	if (!first_copy(flow, sequence)) {
		__sync_fetch_and_add(&flow->duplicated, 1);
		return true;
	}
	if (!in_order(flow, sequence))
		__sync_fetch_and_add(&flow->reordered, 1);
	if (run->untimed && !(sequence & run->untimed))
		now = arrival(run, total);
	if (now)
		record(run, total, row, cpu, now - time, multicast);
	return true;
}

static __always_inline void unread(__u32 ifindex)
{
	struct control *run = at(&control, 0);
	struct interface *interface = run ? at(&interfaces, ifindex - run->lowest) : 0;
	if (interface)
		__sync_fetch_and_add(&interface->unread, 1);
}

/* Room to read what lies scattered: pulling it together would move the packet. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64[8]);
} beginning SEC(".maps");

/* Frames as the stack has them: of ordinary senders. */
SEC("tc")
int count_packet(struct __sk_buff *packet)
{
	__u32 needed = packet->len < CHECKED ? packet->len : CHECKED;
	if ((void *)(long)packet->data + CHECKED > (void *)(long)packet->data_end && packet->len >= CHECKED) {
		/* Headers here, payload in a page: what the kernel cuts from a burst. */
		void *copy = at(&beginning, 0);
		if (copy && !bpf_skb_load_bytes(packet, 0, copy, CHECKED))
			return check(copy, copy + CHECKED, packet->len, packet->ifindex) ? TCX_DROP : TCX_NEXT;
	}
	if ((void *)(long)packet->data + needed > (void *)(long)packet->data_end && bpf_skb_pull_data(packet, needed)) {
		unread(packet->ifindex);
		return TCX_NEXT;
	}
	void *data = (void *)(long)packet->data, *end = (void *)(long)packet->data_end;
	return check(data, end, packet->len, packet->ifindex) ? TCX_DROP : TCX_NEXT;
}

/* Frames that never were a packet of the stack: of the live generator. */
SEC("xdp.frags")
int count_frame(struct xdp_md *frame)
{
	void *data = (void *)(long)frame->data, *end = (void *)(long)frame->data_end;
	return check(data, end, bpf_xdp_get_buff_len(frame), frame->ingress_ifindex) ? XDP_DROP : XDP_PASS;
}

char licence[] SEC("license") = "Apache-2.0";
char source_digest[] SEC("source") = SOURCE_DIGEST;
