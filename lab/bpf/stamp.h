/* SPDX-License-Identifier: Apache-2.0 */
/* What begins every payload; lab/load/stamp.py has the layout and the reasons. */
#define MAGIC 0x4D43
#define HEADER_BYTES 42 /* Ethernet, IPv4 without options, UDP */

/* Two bytes: no more can be relied on behind 42 bytes of headers. */
struct stamp {
	__be16 magic, stream;
	__be32 sequence;
	__be64 time;
	__be16 check;
} __attribute__((packed, aligned(2)));

/* One's complement sum of 16-bit words, folded (RFC 1071); up to 2^48 words' worth. */
static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xFFFFFFFF) + (sum >> 32);
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	return (sum & 0xFFFF) + (sum >> 16);
}

/* The sum of a stamp's words in host order, its check left out, the low word of the sequence number twice. */
static __always_inline __u64 stamp_sum(__u32 stream, __u32 sequence, __u64 time)
{
	return MAGIC + (__u64)stream + (sequence >> 16) + 2 * (__u64)(sequence & 0xFFFF) +
	       (time & 0xFFFFFFFF) + (time >> 32);
}
