// SPDX-License-Identifier: Apache-2.0
/*
 * The XDP engine. "ingress" reads a frame on an input, finds its rule and hands it to the rule's outputs; what no rule
 * wants goes on to the host. "egress" runs once for each copy, in front of its output's driver, and writes the headers.
 * "transmitted" sees how many copies the driver took. layout.py has the structures for Python.
 *
 * Rules that hold this together:
 *
 * - One egress program for all outputs: the kernel runs that of the first frame in a queue of up to sixteen on all of
 *   them (bq_enqueue, bq_xmit_all in kernel/bpf/devmap.c). It finds its output by rule and interface.
 * - The rule's number travels in the first four bytes of the frame. They hold an Ethernet address that egress writes
 *   anew, so no driver needs room for metadata; copies of the frame (xdpf_clone) have it too.
 * - What egress notes in "state", "transmitted" reads on the same CPU right afterwards (bq_xmit_all), so other
 *   programs that send in this way are not counted.
 * - An output that is down, absent or takes no frames is skipped in silence (is_valid_dst): those are the copies that
 *   were due and that egress never saw.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IPV4 0x0800
#define VLAN 0x8100
#define SERVICE_VLAN 0x88A8
#define UDP 17
#define MULTICAST 14 /* upper four bits of the destination */
#define FRAGMENT 0x3FFF
#define DONT_FRAGMENT 0x4000
#define ETHERNET_BYTES 14
#define IP_BYTES 20
#define UDP_BYTES 8
#define HEADERS (ETHERNET_BYTES + IP_BYTES + UDP_BYTES)
#define OPTION_WORDS 10
#define CHUNK_BYTES 64
#define MOST_CHUNKS 1024
#define MOST_OUTPUTS 256
#define FROM_INTERFACE 0
#define PRESERVED 0xFFFFFFFF

/* Of newer headers (Linux 5.13). */
#define TO_ALL (1ULL << 3) /* BPF_F_BROADCAST */

struct ethernet {
	__u8 to[6], from[6];
	__be16 type;
} __attribute__((packed));

struct ip {
	__u8 version_words, tos;
	__be16 total, identification, fragment;
	__u8 ttl, protocol;
	__u16 check;
	__u32 source, group;
} __attribute__((packed, aligned(2)));

struct udp {
	__be16 from, to, bytes;
	__u16 check;
} __attribute__((packed, aligned(2)));

/* Addresses and ports as they stand in a frame. */
struct input {
	__u32 ifindex, group;
	__u16 port, unused;
};

struct rule {
	__u32 number;        /* row of "rule_counts", and what the frame carries */
	__u32 outputs;
	__u32 target;        /* one output: row of "links" and "one"; several: key of "many" */
	__u32 virtual;       /* the input has no wire: its senders may leave checksums to be filled in */
};

struct place {
	__u32 rule, ifindex;
};

struct output {
	__u32 group, source;
	__u32 port_ttl;      /* port | ttl << 16; a ttl of 0: the received one less one */
	__u32 link;
};

struct link {
	__u32 ifindex;       /* 0: it cannot be used */
	__u32 source, mtu, mac_low, mac_high;
};

/* What one CPU counted; the names are those of the packet engine. */
struct counters {
	__u64 no_rule, not_ipv4, not_udp, not_multicast, malformed, bad_checksum, fragment, vlan_tagged;
	__u64 ttl_expired, too_big, transmit_refused;
	__u64 received, received_bytes, matched, matched_bytes, sent;
	__u64 due;           /* copies: matched datagrams times outputs */
	__u64 handed_over;   /* copies with headers written, to a driver */
	__u64 handed_over_bytes;
	__u64 completed;     /* datagrams whose checksum was filled in */
};

struct rule_count {
	__u64 matched, matched_bytes, handed_over, handed_over_bytes;
	__u64 first;         /* when the first datagram was matched, CLOCK_MONOTONIC */
};

/* Of one CPU: the copies between egress and "transmitted", and the next datagram's identification. */
struct state {
	__u32 ours, dropped, identification, unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct input);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct place);
	__type(value, struct output);
} outputs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_OUTPUTS);
	__type(key, __u32);
	__type(value, struct link);
} links SEC(".maps");

/* The smallest MTU of all links. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} smallest SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, MOST_OUTPUTS);
	__type(key, __u32);
	__type(value, struct bpf_devmap_val);
} one SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_DEVMAP);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct bpf_devmap_val));
	});
} many SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rule_count);
} rule_counts SEC(".maps");

static __always_inline void *at(void *array, __u32 index)
{
	return bpf_map_lookup_elem(array, &index);
}

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xFFFFFFFF) + (sum >> 32);
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	return (sum & 0xFFFF) + (sum >> 16);
}

/* Sum of an IPv4 header without options. */
static __always_inline __u64 ip_sum(struct ip *ip)
{
	__u16 *words = (void *)ip;
	__u64 sum = 0;
	for (int i = 0; i < IP_BYTES / 2; i++)
		sum += words[i];
	return sum;
}

static __always_inline __u32 given_ttl(struct output *output)
{
	return output->port_ttl >> 16;
}

static __always_inline bool expires(struct output *output, __u8 ttl)
{
	return !given_ttl(output) && ttl <= 1;
}

struct summing {
	struct xdp_md *frame;
	__u32 offset, left;
	__u64 sum;
};

static long sum_chunk(__u32 unused, struct summing *to)
{
	__u64 chunk[CHUNK_BYTES / 8] = {};
	__u32 bytes = to->left < CHUNK_BYTES ? to->left : CHUNK_BYTES;
	(void)unused;
	if (!bytes || bpf_xdp_load_bytes(to->frame, to->offset, chunk, bytes))
		return 1;
	for (int i = 0; i < CHUNK_BYTES / 8; i++)
		to->sum += (chunk[i] & 0xFFFFFFFF) + (chunk[i] >> 32);
	to->offset += bytes;
	to->left -= bytes;
	return 0;
}

/* Count the copies that are too long for their output, which the kernel may skip in silence. */
static __always_inline void count_long(struct rule *rule, void *set, struct ip *ip, __u32 bytes, struct counters *count)
{
	for (__u32 i = 0; i < MOST_OUTPUTS; i++) {
		if (i >= rule->outputs)
			break;
		struct bpf_devmap_val *entry = set ? at(set, i) : at(&one, rule->target);
		if (!entry)
			continue;
		struct place place = { .rule = rule->number, .ifindex = entry->ifindex };
		struct output *output = bpf_map_lookup_elem(&outputs, &place);
		struct link *link = output ? at(&links, output->link) : 0;
		if (!link || bytes <= link->mtu)
			continue;
		if (expires(output, ip->ttl))
			count->ttl_expired++;
		else
			count->too_big++;
	}
}

SEC("xdp")
int ingress(struct xdp_md *frame)
{
	void *data = (void *)(long)frame->data, *end = (void *)(long)frame->data_end;
	struct counters *count = at(&counters, 0);
	struct ethernet *ethernet = data;
	struct ip *ip = data + ETHERNET_BYTES;
	if (!count)
		return XDP_PASS;
	count->received++;
	if (data + ETHERNET_BYTES > end) {
		count->malformed++;
		return XDP_PASS;
	}
	if (ethernet->type != bpf_htons(IPV4)) {
		if (ethernet->type == bpf_htons(VLAN) || ethernet->type == bpf_htons(SERVICE_VLAN))
			count->vlan_tagged++;
		else
			count->not_ipv4++;
		return XDP_PASS;
	}
	if ((void *)(ip + 1) > end || ip->version_words >> 4 != 4 || (ip->version_words & 15) < 5) {
		count->malformed++;
		return XDP_PASS;
	}
	__u32 length = end - data, header = (ip->version_words & 15) * 4, total = bpf_ntohs(ip->total);
	if (total < header || total > length - ETHERNET_BYTES) {
		count->malformed++;
		return XDP_PASS;
	}
	__u64 sum = ip_sum(ip);
	for (__u32 i = 0; i < OPTION_WORDS; i++) {
		__u16 *option = (void *)(ip + 1) + 4 * i;
		if (IP_BYTES + 4 * i >= header || (void *)(option + 2) > end)
			break;
		sum += option[0];
		sum += option[1];
	}
	if (fold(sum) != 0xFFFF) {
		count->bad_checksum++;
		return XDP_PASS;
	}
	if ((bpf_ntohl(ip->group) >> 28) != MULTICAST) {
		count->not_multicast++;
		return XDP_PASS;
	}
	if (ip->protocol != UDP) {
		count->not_udp++;
		return XDP_PASS;
	}
	if (ip->fragment & bpf_htons(FRAGMENT)) {
		count->fragment++;
		return XDP_PASS;
	}
	struct udp *udp = (void *)ip + header;
	if (total < header + UDP_BYTES || (void *)(udp + 1) > end) {
		count->malformed++;
		return XDP_PASS;
	}
	__u32 udp_bytes = bpf_ntohs(udp->bytes);
	if (udp_bytes < UDP_BYTES || udp_bytes > total - header) {
		count->malformed++;
		return XDP_PASS;
	}
	count->received_bytes += udp_bytes - UDP_BYTES;
	struct input input = { .ifindex = frame->ingress_ifindex, .group = ip->group, .port = udp->to };
	struct rule *rule = bpf_map_lookup_elem(&rules, &input);
	struct rule_count *of_rule = rule ? at(&rule_counts, rule->number) : 0;
	if (!of_rule) {
		count->no_rule++;
		return XDP_PASS;
	}
	count->matched++;
	count->matched_bytes += udp_bytes - UDP_BYTES;
	count->due += rule->outputs;
	if (!of_rule->matched++)
		of_rule->first = bpf_ktime_get_ns();
	of_rule->matched_bytes += udp_bytes - UDP_BYTES;

	/* The sum of addresses, protocol and length alone is what a sender leaves for its card to complete. */
	__u64 pseudo = (__u64)ip->source + ip->group + bpf_htons(UDP) + udp->bytes;
	if (rule->virtual && udp->check && udp->check == fold(pseudo)) {
		struct summing whole = { .frame = frame, .offset = ETHERNET_BYTES + header, .left = udp_bytes, .sum = pseudo };
		bpf_loop(MOST_CHUNKS, sum_chunk, &whole, 0);
		if (!whole.left && fold(whole.sum) != 0xFFFF) {
			__u32 check = fold(whole.sum - udp->check) ^ 0xFFFF;
			udp->check = check ? check : 0xFFFF;
			count->completed++;
		}
	}

	/* Egress finds UDP behind an IPv4 header without options, and nothing behind its payload. */
	__u32 bytes = IP_BYTES + udp_bytes, surplus = length - ETHERNET_BYTES - header - udp_bytes;
	if (header > IP_BYTES) {
		struct ip kept = *ip;
		if (bpf_xdp_adjust_head(frame, header - IP_BYTES))
			return XDP_DROP;
		data = (void *)(long)frame->data, end = (void *)(long)frame->data_end;
		ip = data + ETHERNET_BYTES;
		if ((void *)(ip + 1) > end)
			return XDP_DROP;
		*ip = kept;
	}
	if (surplus) {
		if (bpf_xdp_adjust_tail(frame, -(int)surplus))
			return XDP_DROP;
		data = (void *)(long)frame->data, end = (void *)(long)frame->data_end;
		ip = data + ETHERNET_BYTES;
		if ((void *)(ip + 1) > end)
			return XDP_DROP;
	}
	*(__u32 *)data = rule->number;

	__u32 *shortest = at(&smallest, 0);
	void *set = rule->outputs > 1 ? bpf_map_lookup_elem(&many, &rule->target) : 0;
	if (shortest && bytes > *shortest)
		count_long(rule, set, ip, bytes, count);
	if (rule->outputs == 1)
		return bpf_redirect_map(&one, rule->target, XDP_DROP);
	return set ? bpf_redirect_map(set, 0, TO_ALL) : XDP_DROP;
}

/* Write the headers of a copy that leaves by an interface. */
static __always_inline int write_headers(struct xdp_md *frame, __u32 ifindex)
{
	void *data = (void *)(long)frame->data, *end = (void *)(long)frame->data_end;
	struct ethernet *ethernet = data;
	struct ip *ip = data + ETHERNET_BYTES;
	struct udp *udp = (void *)(ip + 1);
	struct counters *count = at(&counters, 0);
	struct state *cpu = at(&state, 0);
	if (!count || !cpu)
		return XDP_DROP;
	cpu->ours = 1;
	cpu->dropped++; /* taken back below */
	if ((void *)(udp + 1) > end)
		return XDP_DROP;
	struct place place = { .rule = *(__u32 *)data, .ifindex = ifindex };
	struct output *output = bpf_map_lookup_elem(&outputs, &place);
	struct link *link = output ? at(&links, output->link) : 0;
	struct rule_count *of_rule = at(&rule_counts, place.rule);
	__u32 udp_bytes = bpf_ntohs(udp->bytes), bytes = IP_BYTES + udp_bytes;
	if (!link || !of_rule || bytes > link->mtu)
		return XDP_DROP; /* too long: counted by ingress */
	if (expires(output, ip->ttl)) {
		count->ttl_expired++;
		return XDP_DROP;
	}

	__u32 from = ip->source, to = ip->group, source = output->source, group = output->group;
	if (source == FROM_INTERFACE)
		source = link->source;
	else if (source == PRESERVED)
		source = from;
	__u16 port = output->port_ttl;
	if (udp->check) {
		/* RFC 1624, equation 3 */
		__u64 removed = (__u64)from + to + udp->to, added = (__u64)source + group + port;
		__u32 check = fold((udp->check ^ 0xFFFF) + (fold(removed) ^ 0xFFFF) + fold(added)) ^ 0xFFFF;
		udp->check = check ? check : 0xFFFF;
	}
	udp->to = port;

	ip->version_words = 0x45;
	ip->total = bpf_htons(bytes);
	ip->identification = bpf_htons(cpu->identification++);
	ip->fragment &= bpf_htons(DONT_FRAGMENT);
	ip->ttl = given_ttl(output) ? given_ttl(output) : ip->ttl - 1;
	ip->source = source;
	ip->group = group;
	ip->check = 0;
	ip->check = fold(ip_sum(ip)) ^ 0xFFFF;

	ethernet->to[0] = 0x01;
	ethernet->to[1] = 0x00;
	ethernet->to[2] = 0x5E;
	ethernet->to[3] = (group >> 8) & 0x7F;
	ethernet->to[4] = group >> 16;
	ethernet->to[5] = group >> 24;
	*(__u16 *)(ethernet->from) = link->mac_low;
	*(__u16 *)(ethernet->from + 2) = link->mac_low >> 16;
	*(__u16 *)(ethernet->from + 4) = link->mac_high;
	ethernet->type = bpf_htons(IPV4);

	cpu->dropped--;
	count->handed_over++;
	count->handed_over_bytes += udp_bytes - UDP_BYTES;
	of_rule->handed_over++;
	of_rule->handed_over_bytes += udp_bytes - UDP_BYTES;
	return XDP_PASS;
}

SEC("xdp/devmap")
int egress(struct xdp_md *frame)
{
	return write_headers(frame, frame->egress_ifindex);
}

/* The same for BPF_PROG_TEST_RUN, which runs no program of a devmap: as if the copy left by where it came in. */
SEC("?xdp")
int egress_alone(struct xdp_md *frame)
{
	return write_headers(frame, frame->ingress_ifindex);
}

SEC("raw_tp/xdp_devmap_xmit")
int transmitted(struct bpf_raw_tracepoint_args *context)
{
	struct counters *count = at(&counters, 0);
	struct state *cpu = at(&state, 0);
	if (!count || !cpu || !cpu->ours)
		return 0;
	__u32 sent = context->args[2], drops = context->args[3]; /* from_dev, to_dev, sent, drops, err */
	count->sent += sent;
	count->transmit_refused += drops - cpu->dropped;
	cpu->ours = 0;
	cpu->dropped = 0;
	return 0;
}

char licence[] SEC("license") = "Apache-2.0";
char source_digest[] SEC("source") = SOURCE_DIGEST;
