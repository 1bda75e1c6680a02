/* Workloads of threads on all CPUs: futex, spin. The first thread is the process itself. */
#include "system.h"

enum { MOST = 256, STACK = 8192, ALL = 0x7fffffff };

static u8 stacks[MOST][STACK] __attribute__((aligned(16)));
static u32 baton[MOST];		/* whose turn it is, each a futex of its own */
static u32 alive[MOST];
static u32 ready, gate, done, leave, lock;
static unsigned int threads, processors;
static unsigned long planned, guarded;
static wrong found;
static void (*work)(long);

static void count_up(u32 *word)
{
	__atomic_add_fetch(word, 1, __ATOMIC_SEQ_CST);
	futex_wake(word, ALL);
}

static void open_up(u32 *word)
{
	__atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
	futex_wake(word, ALL);
}

/* All others have counted up. */
static void await_all(u32 *word)
{
	u32 now;

	while ((now = __atomic_load_n(word, __ATOMIC_SEQ_CST)) != threads - 1)
		futex_wait(word, now);
}

/* The baton goes round once a round; who has it counts. */
static void futex_rounds(long self)
{
	for (unsigned long round = 0; round < planned; round++) {
		unsigned int next = (self + 1) % threads;

		while (!__atomic_exchange_n(&baton[self], 0, __ATOMIC_SEQ_CST))
			futex_wait(&baton[self], 0);
		if (guarded++ != round * threads + self)
			found = "the baton came out of turn";
		__atomic_store_n(&baton[next], 1, __ATOMIC_SEQ_CST);
		futex_wake(&baton[next], 1);
	}
}

/* Every thread takes the program's spinlock, counts, and has the kernel take one of its own that all share: that of
 * a futex, which it locks before it sees that the word is not as it should be. */
static void spin_rounds(long self)
{
	static u32 word;

	(void)self;
	for (unsigned long round = 0; round < planned; round++) {
		while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
			while (*(volatile u32 *)&lock)
				asm volatile("pause");
		guarded++;
		__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
		if (call4(SYS_futex, (long)&word, 0, 1, 0) != -EAGAIN)
			found = "futex slept, or failed otherwise than it should";
	}
}

static void thread(long self)
{
	pin(self % processors);
	count_up(&ready);
	futex_wait(&gate, 0);
	work(self);
	count_up(&done);
	futex_wait(&leave, 0);
}

static wrong start(unsigned int number, unsigned long rounds, void (*rounds_of)(long))
{
	threads = number < MOST ? number : MOST;
	planned = rounds;
	work = rounds_of;
	guarded = ready = gate = done = leave = 0;
	found = 0;
	for (unsigned int self = 0; self < threads; self++)
		baton[self] = !self;
	for (unsigned int self = 1; self < threads; self++) {
		alive[self] = 1;
		if (start_thread(thread, self, stacks[self] + STACK, &alive[self]) < 0)
			return "clone failed";
	}
	await_all(&ready);
	return 0;
}

static wrong run(unsigned long rounds)
{
	(void)rounds;
	open_up(&gate);
	work(0);
	await_all(&done);
	return 0;
}

static wrong end(unsigned long rounds)
{
	open_up(&leave);
	for (unsigned int self = 1; self < threads; self++)
		futex_wait(&alive[self], 1);
	value += guarded;
	if (!found && guarded != threads * rounds)
		found = "a thread's count was lost";
	return found;
}

/* At least two, so that the baton has where to go. */
static wrong futex_ready(unsigned long rounds)
{
	return start(processors > 2 ? processors : 2, rounds, futex_rounds);
}

static wrong spin_ready(unsigned long rounds)
{
	return start(processors, rounds, spin_rounds);
}

void look_for_processors(void)
{
	processors = cpus();
}

const struct workload thread_workloads[] = {
	{ "futex", futex_ready, run, end, 1 },
	{ "spin", spin_ready, run, end, 1 },
	{ 0 },
};
