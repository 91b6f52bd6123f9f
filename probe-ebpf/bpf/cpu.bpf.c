// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Samples of what threads of chosen processes do, taken where a perf event interrupts a CPU.
 *
 * User stacks are walked by frame pointers, which Go keeps. Where a goroutine called C, whose frames may have none, the
 * walk goes on from where the goroutine left its own stack. So it does where the goroutine's stack grows, or where the
 * runtime works on the stack of the thread for it: functions of assembly code switch stacks there, and frame pointers lead
 * around what called these. What is doubtful is left to user space, which knows the
 * function tables: each sample has the registers, and the top of the stack as a part of its own.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "records.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Set before loading. */

/* Inode of the loader's pid namespace; 0 for the first one. */
const volatile __u32 pid_namespace;
/* Every process is a target. */
const volatile __u32 whole_system;
/* Frames of the kernel too. */
const volatile __u32 kernel_frames;
/* Bytes of stack to copy where Go code was interrupted, for frames that have no pointer yet. */
const volatile __u32 go_stack = 512;
/* The same for other code, which is unwound by its tables. */
const volatile __u32 other_stack = 16384;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct target);
} targets SEC(".maps");

#define RING_SIZE (8 << 20)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_SIZE);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct buffers {
	__u64 number;
	/* How often the walk has come to a lower stack. */
	__u64 turns;
	/* Where it ended: a `crossing`, and the frame pointer there. */
	__u64 crossing;
	__u64 next;
	struct sample sample;
	struct kernel_part kernel;
	struct stack_part stack;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct buffers);
} buffers SEC(".maps");

static __always_inline void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		*value += 1;
}

/*
 * Samples can wait: who reads them looks now and then by itself, and each wake-up would take time from those that are
 * sampled. Only when there is little room left it has to hurry.
 */
static __always_inline __u64 wakeup(void)
{
	return bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA) > RING_SIZE / 4 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* Deeper nesting than the kernel has. */
#define MAX_NAMESPACES 33

/* The number of a thread in the namespace of the loader; 0 where it has none there. */
static __always_inline __u32 number_of(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	void *numbers = (void *)pid + bpf_core_field_offset(struct pid, numbers);
	__u32 size = bpf_core_type_size(struct upid);

	if (!pid_namespace)
		return BPF_CORE_READ(task, pid);
	for (int i = 0; i < MAX_NAMESPACES; i++) {
		struct upid *one = numbers + (__u64)i * size;

		if (i > BPF_CORE_READ(pid, level))
			break;
		if (BPF_CORE_READ(one, ns, ns.inum) == pid_namespace)
			return BPF_CORE_READ(one, nr);
	}
	return 0;
}

/* Nothing is in its code. */
static const struct runtime no_runtime;

static __always_inline __u64 user_word(__u64 at)
{
	__u64 word = 0;

	bpf_probe_read_user(&word, sizeof(word), (void *)at);
	return word;
}

enum crossing {
	CROSSING_NONE,
	/* runtime.morestack: f's call of it, whose frame is not there yet. */
	CROSSING_MORESTACK,
	/* runtime.systemstack: a call of that. */
	CROSSING_SYSTEMSTACK,
};

/*
 * Which goroutine the thread is on, and of which runtime: of the one whose code it runs. In other code, of the one whose
 * goroutine called it: of runtimes that have left a goroutine for the system's stack, the one that did so last, which is
 * furthest down on it (runtime.cgocallback notes where). Says whether it has called C from there; `in_go` whether the code is
 * Go's.
 */
static __always_inline int find_goroutine(struct sample *s, const struct target *t, struct task_struct *task,
					  const struct runtime **of, int *in_go)
{
	__u64 base = BPF_CORE_READ(task, thread.fsbase);
	const struct runtime *r = 0;
	__u64 best = ~0ULL;
	__u32 index = 0;

	*in_go = 0;
#pragma unroll
	for (int i = 0; i < MAX_RUNTIMES; i++) {
		const struct runtime *this = &t->runtimes[i];
		__u64 g, m, curg, rank;
		int inside;

		if (i >= t->count)
			break;
		inside = s->ip >= this->text_start && s->ip < this->text_end;
		g = base ? user_word(base + this->tls_g) : 0;
		m = g ? user_word(g + this->g_m) : 0;
		curg = m ? user_word(m + this->m_curg) : 0;
		if (inside) {
			*in_go = 1;
			rank = 0;
		} else if (!g) {
			continue;
		} else if (!curg) {
			/* Its thread has no goroutine: any other one is better. */
			rank = ~0ULL - 1;
		} else if (curg == g || t->count == 1) {
			rank = 1;
		} else {
			rank = user_word(g + this->g_sched_sp);
			if (rank < s->sp)
				continue;
		}
		if (rank >= best)
			continue;
		best = rank;
		s->g = g;
		s->curg = curg;
		r = this;
		index = i;
	}
	if (!r)
		return 0;
	*of = r;
	if (!s->curg)
		return 0;
	s->flags |= index << SAMPLE_RUNTIME_SHIFT;
	s->goid = user_word(s->curg + r->g_goid);
	s->labels = user_word(s->curg + r->g_labels);
	return s->curg != s->g && !*in_go;
}

/* Copies the stack from `from` on, up to `size` bytes or to its end. */
static __always_inline void send_stack(struct buffers *b, __u64 from, __u32 size)
{
	__u32 length = 0;

	for (int i = 0; i < MAX_STACK / 1024; i++) {
		__u32 at = length;

		if (at + 1024 > size || at > MAX_STACK - 1024)
			break;
		if (bpf_probe_read_user(&b->stack.bytes[at], 1024, (void *)(from + at)))
			break;
		length += 1024;
	}
	/* What is left before the end of the mapping, or of what is wanted. */
	for (int i = 0; i < 16; i++) {
		__u32 at = length;

		if (at + 64 > size || at > MAX_STACK - 64)
			break;
		if (bpf_probe_read_user(&b->stack.bytes[at], 64, (void *)(from + at)))
			break;
		length += 64;
	}
	if (!length || length > MAX_STACK)
		return;
	b->stack.header = b->sample.header;
	b->stack.header.kind = RECORD_STACK;
	if (bpf_ringbuf_output(&records, &b->stack, sizeof(struct header) + length, BPF_RB_NO_WAKEUP))
		count(COUNT_LOST_PARTS);
}

static __always_inline void send_kernel_frames(struct buffers *b, void *ctx)
{
	long size = bpf_get_stack(ctx, b->kernel.frames, sizeof(b->kernel.frames), 0);

	if (size <= 0 || size > sizeof(b->kernel.frames))
		return;
	b->kernel.header = b->sample.header;
	b->kernel.header.kind = RECORD_KERNEL;
	if (bpf_ringbuf_output(&records, &b->kernel, sizeof(struct header) + size, BPF_RB_NO_WAKEUP))
		count(COUNT_LOST_PARTS);
}

struct frame {
	__u64 next;
	__u64 back;
};

/*
 * A stack grows down, so frames move up. What Go changes to may lie below, at most once from a stack of signals and once from
 * the thread's; C that Go calls back from too.
 */
#define MAX_TURNS 4

/*
 * What is true is 1, without a jump: the verifier keeps each jump that it has not followed yet, and there is room for few in
 * a step. Addresses of user space are small.
 */
static __always_inline __u64 is_negative(__u64 value)
{
	asm volatile("" : "+r"(value));
	return value >> 63;
}

static __always_inline __u64 is_within(__u64 at, __u64 start, __u64 end)
{
	return is_negative(at - end) & ~is_negative(at - start);
}

static __always_inline __u64 is_zero(__u64 value)
{
	return 1 ^ is_negative(value | -value);
}

/* One frame up. Says whether that was the last one. */
static __always_inline int step(struct buffers *b, const struct runtime *r, __u64 *bp, __u32 *length)
{
	struct sample *s = &b->sample;
	struct frame frame;
	__u64 crossing;
	__u32 at;

	if (*bp & 7)
		return 1;
	/* There is nothing at the lowest addresses. */
	if (bpf_probe_read_user(&frame, sizeof(frame), (void *)*bp))
		return 1;
	if (*length >= MAX_FRAMES)
		return 1;
	at = *length;
	/* Kept apart from what it is a copy of, so that its bounds are seen. */
	asm volatile("" : "+r"(at));
	s->frames[at & (MAX_FRAMES - 1)] = frame.back;
	/* What returns to nowhere is the first frame. */
	*length += 1 ^ is_zero(frame.back);
	crossing = CROSSING_MORESTACK * is_within(frame.back, r->morestack_start, r->morestack_end);
	crossing |= CROSSING_SYSTEMSTACK * is_within(frame.back, r->systemstack_start, r->systemstack_end);
	b->crossing = crossing;
	b->next = frame.next;
	b->turns += is_negative(frame.next - *bp);
	if (crossing | is_zero(frame.back) | is_zero(frame.next - *bp) | is_negative(MAX_TURNS - b->turns))
		return 1;
	*bp = frame.next;
	return 0;
}

/*
 * Follows frame pointers from `bp`; `s->length` frames are there already.
 *
 * The verifier compares what it knows at the head of a loop with what it knew in each turn before. Few turns of
 * several steps take it a fraction of the time of as many steps.
 */
static __always_inline void walk(struct buffers *b, const struct runtime *r, __u64 bp)
{
	struct sample *s = &b->sample;
	__u32 length = s->length;
	int i;

	for (i = 0; i < MAX_FRAMES / 16; i++) {
#define TWO if (step(b, r, &bp, &length) || step(b, r, &bp, &length)) break
		TWO; TWO; TWO; TWO; TWO; TWO; TWO; TWO;
#undef TWO
	}
	if (length >= MAX_FRAMES)
		s->flags |= SAMPLE_CUT;
	s->length = length;
}

static __always_inline void push(struct sample *s, __u64 pc)
{
	__u32 at = s->length;

	if (!pc || at >= MAX_FRAMES)
		return;
	s->frames[at & (MAX_FRAMES - 1)] = pc;
	s->length = at + 1;
}

/*
 * Goes on where the goroutine left its stack: what it was doing is in its `sched` meanwhile. The function that switches stacks
 * has no frame of its own up to Go 1.20, and in `morestack`: the return address to its caller is the top of the goroutine's
 * stack. From Go 1.21 on `systemstack` has one: the top of the stack is the frame pointer that it saved, and its own leads there.
 */
static __always_inline void cross(struct buffers *b, const struct runtime *r)
{
	struct sample *s = &b->sample;
	__u64 crossing = b->crossing, bp = b->next, sp = 0;

	if (crossing == CROSSING_NONE)
		return;
	if (s->curg && s->curg != s->g)
		sp = user_word(s->curg + r->g_sched_sp);
	if (sp) {
		s->flags |= SAMPLE_CROSSED;
		if (crossing == CROSSING_MORESTACK)
			push(s, user_word(s->curg + r->g_sched_pc));
		bp = user_word(s->curg + r->g_sched_bp);
		if (bp != sp)
			push(s, user_word(sp));
	} else if (crossing == CROSSING_MORESTACK) {
		/* The scheduler has taken the goroutine off. */
		return;
	}
	walk(b, &no_runtime, bp);
}

SEC("perf_event")
int on_cpu(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	static const struct target unknown;
	const struct target *t;
	struct buffers *b;
	struct sample *s;
	__u32 zero = 0, pid, length;

	count(COUNT_FIRED);
	/* The idle thread. */
	if (!(bpf_get_current_pid_tgid() >> 32))
		return 0;
	pid = number_of(BPF_CORE_READ(task, group_leader));
	t = bpf_map_lookup_elem(&targets, &pid);
	if (!t) {
		if (!whole_system)
			return 0;
		t = &unknown;
	}
	b = bpf_map_lookup_elem(&buffers, &zero);
	if (!b)
		return 0;
	count(COUNT_TAKEN);
	s = &b->sample;
	b->number++;
	s->header.kind = RECORD_SAMPLE;
	s->header.cpu = bpf_get_smp_processor_id();
	s->header.number = b->number;
	s->time = bpf_ktime_get_ns();
	s->pid = pid;
	s->tid = number_of(task);
	s->flags = 0;
	s->length = 0;
	s->ip = s->sp = s->bp = s->g = s->curg = s->goid = s->labels = 0;
	b->turns = 0;
	b->crossing = CROSSING_NONE;
	if ((ctx->regs.cs & 3) == 3) {
		s->ip = ctx->regs.ip;
		s->sp = ctx->regs.sp;
		s->bp = ctx->regs.bp;
		/* Code of 64 bits. */
		if (ctx->regs.cs == 0x33)
			s->flags |= SAMPLE_USER;
	} else {
		s->flags |= SAMPLE_IN_KERNEL;
		if (!(BPF_CORE_READ(task, flags) & PF_KTHREAD)) {
			struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

			s->ip = BPF_CORE_READ(regs, ip);
			s->sp = BPF_CORE_READ(regs, sp);
			s->bp = BPF_CORE_READ(regs, bp);
			if (BPF_CORE_READ(regs, cs) == 0x33)
				s->flags |= SAMPLE_USER;
		}
		if (kernel_frames)
			send_kernel_frames(b, ctx);
	}
	if (s->flags & SAMPLE_USER) {
		const struct runtime *r = &no_runtime;
		__u64 bp = s->bp;
		int in_go;

		if (find_goroutine(s, t, task, &r, &in_go)) {
			/* runtime.asmcgocall left the goroutine's stack; its return address is on top of that. */
			__u64 sp = user_word(s->curg + r->g_sched_sp);

			bp = user_word(s->curg + r->g_sched_bp);
			s->frames[0] = user_word(sp);
			s->length = s->frames[0] != 0;
			s->flags |= SAMPLE_HOPPED;
		}
		walk(b, r, bp);
		cross(b, r);
		send_stack(b, s->sp, in_go ? go_stack : other_stack);
	}
	length = s->length;
	if (length > MAX_FRAMES)
		return 0;
	if (bpf_ringbuf_output(&records, s, sizeof(*s) - sizeof(s->frames) + length * 8, wakeup()))
		count(COUNT_LOST);
	return 0;
}

static __always_inline void tell(__u32 kind, __u32 pid, __u32 parent)
{
	struct life life = {};

	life.header.kind = kind;
	life.header.cpu = bpf_get_smp_processor_id();
	life.pid = pid;
	life.parent = parent;
	/* A process may end soon, and can only be looked at before. */
	if (bpf_ringbuf_output(&records, &life, sizeof(life), BPF_RB_FORCE_WAKEUP))
		count(COUNT_LOST_PARTS);
}

/* A new process has the memory of its parent, and so its layout. */
SEC("tp_btf/sched_process_fork")
int on_fork(__u64 *ctx)
{
	struct task_struct *parent = (struct task_struct *)ctx[0];
	struct task_struct *child = (struct task_struct *)ctx[1];
	struct target *t;
	__u32 pid, of;

	/* A new thread. */
	if (BPF_CORE_READ(parent, tgid) == BPF_CORE_READ(child, tgid))
		return 0;
	of = number_of(BPF_CORE_READ(parent, group_leader));
	pid = number_of(child);
	t = bpf_map_lookup_elem(&targets, &of);
	if (!t || !(t->flags & TARGET_FOLLOW)) {
		/* What had its number before has ended. */
		bpf_map_delete_elem(&targets, &pid);
		if (whole_system)
			tell(RECORD_FORK, pid, of);
		return 0;
	}
	bpf_map_update_elem(&targets, &pid, t, BPF_ANY);
	tell(RECORD_FORK, pid, of);
	return 0;
}

/* Another program has another layout. */
SEC("tp_btf/sched_process_exec")
int on_exec(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct target other = { .flags = TARGET_FOLLOW };
	struct target *t;
	__u32 pid;

	pid = number_of(BPF_CORE_READ(task, group_leader));
	t = bpf_map_lookup_elem(&targets, &pid);
	if (!t)
		return 0;
	other.flags &= t->flags;
	bpf_map_update_elem(&targets, &pid, &other, BPF_ANY);
	tell(RECORD_EXEC, pid, 0);
	return 0;
}
