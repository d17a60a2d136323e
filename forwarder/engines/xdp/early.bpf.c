// SPDX-License-Identifier: Apache-2.0
/*
 * Early drop, for the packet engine: drops multicast before it becomes a socket buffer while the ring that it is for
 * is nearly full. early_drop.py has the structure for Python, schema.py what the worker needs of it.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { RINGS = 512, LET_THROUGH = 256 };
enum { IPV4 = 0x0800, UDP = 17, MULTICAST = 0xE, LOCAL_NETWORK = 0xE00000 };

struct level {
	__u64 passed; /* frames for the ring */
	__u64 above;  /* datagrams that found it nearly full */
	__u64 limit;  /* frames */
	__u64 unused[5];
	__u64 released; /* written by the worker: how many of "passed" have left the ring */
	__u64 unused_too[7];
};

struct start {
	__u8 to[6], from[6];
	__u16 type;
	__u8 version_words, tos;
	__u16 total, identification, fragment;
	__u8 ttl, protocol;
	__u16 check;
	__u32 source, group;
} __attribute__((packed));

/* The ring of an interface. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, RINGS);
	__type(key, __u32);
	__type(value, __u32);
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RINGS);
	__type(key, __u32);
	__type(value, struct level);
} levels SEC(".maps");

/* Multicast UDP over IPv4, but for groups of the local network (224.0.0.0/24). */
static __always_inline int may_drop(struct xdp_md *frame)
{
	struct start *start = (void *)(long)frame->data;
	if ((void *)(start + 1) > (void *)(long)frame->data_end)
		return 0;
	__u32 group = bpf_ntohl(start->group);
	return start->type == bpf_htons(IPV4) && start->version_words >> 4 == 4 && start->protocol == UDP &&
	       group >> 28 == MULTICAST && group >> 8 != LOCAL_NETWORK;
}

SEC("xdp.frags")
int early(struct xdp_md *frame)
{
	__u32 ifindex = frame->ingress_ifindex;
	__u32 *ring = bpf_map_lookup_elem(&rings, &ifindex);
	struct level *level = ring ? bpf_map_lookup_elem(&levels, ring) : 0;
	if (!level)
		return XDP_PASS;
	__s64 waiting = *(volatile __u64 *)&level->passed - *(volatile __u64 *)&level->released;
	/*
	 * A few pass all the same: were the level ever wrong, they would wake the worker, which sets it right when it
	 * finds its ring empty.
	 */
	if (waiting >= (__s64)level->limit && may_drop(frame) && __sync_fetch_and_add(&level->above, 1) % LET_THROUGH)
		return XDP_DROP;
	__sync_fetch_and_add(&level->passed, 1);
	return XDP_PASS;
}

char licence[] SEC("license") = "Apache-2.0";
char source_digest[] SEC("source") = SOURCE_DIGEST;
