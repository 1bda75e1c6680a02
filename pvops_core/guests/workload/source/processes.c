/* Workloads of processes: fork, exec, switch, signal, syscall, timer. */
#include "system.h"

enum { MOST_STATUS = 127, SIGUSR1 = 10, SIGALRM = 14, SIGCHLD = 17 };

static wrong nothing(unsigned long rounds)
{
	(void)rounds;
	return 0;
}

/* Waits for the child and holds its exit status against the one that it should have. */
static wrong ended(long child, unsigned int status)
{
	int found = -1;

	if (child < 0)
		return "fork failed";
	if (call4(SYS_wait4, child, (long)&found, 0, 0) != child)
		return "wait4 found no child";
	if (found != (int)(status << 8))
		return "a child ended otherwise than it should";
	value += status;
	return 0;
}

static wrong fork_round(unsigned long number)
{
	long child = call0(SYS_fork);

	if (!child)
		exit_process(number & MOST_STATUS);
	return ended(child, number & MOST_STATUS);
}

static wrong exec_round(unsigned long number)
{
	char status[4] = { '0' + number / 100 % 10, '0' + number / 10 % 10, '0' + number % 10, 0 };
	char *arguments[] = { "/init", "exit", status, 0 };
	const char *text = status;
	unsigned int expected = number_at(&text) & MOST_STATUS;
	long child = call0(SYS_fork);

	if (!child) {
		call3(SYS_execve, "/init", arguments, environment);
		exit_process(MOST_STATUS + 1);
	}
	return ended(child, expected);
}

/* Two processes hand a byte to and fro; both are on one CPU, so that each handing over is a switch. */
static int to_child[2], to_parent[2];
static long partner;

static wrong switch_ready(unsigned long rounds)
{
	u8 byte;

	(void)rounds;
	if (call1(SYS_pipe, to_child) || call1(SYS_pipe, to_parent))
		return "pipe failed";
	partner = call0(SYS_fork);
	if (partner)
		return partner < 0 ? "fork failed" : 0;
	while (call3(SYS_read, to_child[0], &byte, 1) == 1 && byte != 0xff) {
		byte++;
		call3(SYS_write, to_parent[1], &byte, 1);
	}
	exit_process(0);
}

static wrong switch_round(unsigned long number)
{
	u8 sent = number & MOST_STATUS, got = 0;

	call3(SYS_write, to_child[1], &sent, 1);
	if (call3(SYS_read, to_parent[0], &got, 1) != 1 || got != sent + 1)
		return "the other process answered wrongly";
	value += got;
	return 0;
}

static wrong switch_end(unsigned long rounds)
{
	u8 end = 0xff;

	(void)rounds;
	call3(SYS_write, to_child[1], &end, 1);
	return ended(partner, 0);
}

static volatile unsigned long signals;

static void handler(int number, void *info, void *context)
{
	(void)info, (void)context;
	signals += number;
}

void restore(void);
#ifdef __x86_64__
asm("restore: mov $15, %eax; syscall");
#else
asm("restore: mov $173, %eax; int $0x80");
#endif

/* struct sigaction as rt_sigaction takes it (include/linux/signal_types.h). */
static struct {
	void (*handler)(int, void *, void *);
	unsigned long flags;
	void (*restorer)(void);
	u32 mask[2];
} action = { handler, 0x04000000 | 4, restore, { 0, 0 } };	/* SA_RESTORER, SA_SIGINFO */

static wrong signal_ready(unsigned long rounds)
{
	(void)rounds;
	return call4(SYS_rt_sigaction, SIGUSR1, (long)&action, 0, 8) ? "rt_sigaction failed" : 0;
}

static wrong signal_round(unsigned long number)
{
	long self = call0(SYS_getpid);
	unsigned long before = signals;

	(void)number;
	if (call3(SYS_tgkill, self, self, SIGUSR1))
		return "tgkill failed";
	if (signals != before + SIGUSR1)
		return "the handler was not called";
	value++;
	return 0;
}

static wrong syscall_round(unsigned long number)
{
	(void)number;
	if (call0(SYS_getppid))
		return "the first process has a parent";
	value++;
	return 0;
}

static const u32 alarm_set[2] = { 1 << (SIGALRM - 1), 0 };

static wrong timer_ready(unsigned long rounds)
{
	(void)rounds;
	return call4(SYS_rt_sigprocmask, 0, (long)alarm_set, 0, 8) ? "rt_sigprocmask failed" : 0;
}

static wrong timer_round(unsigned long number)
{
	static const long in_a_millisecond[4] = { 0, 0, 0, 1000 };

	(void)number;
	if (call3(SYS_setitimer, 0, in_a_millisecond, 0))
		return "setitimer failed";
	if (call4(SYS_rt_sigtimedwait, (long)alarm_set, 0, 0, 8) != SIGALRM)
		return "the timer's signal did not come";
	value++;
	return 0;
}

const struct workload process_workloads[] = {
	{ "fork", nothing, fork_round, nothing, 0 },
	{ "exec", nothing, exec_round, nothing, 0 },
	{ "switch", switch_ready, switch_round, switch_end, 0 },
	{ "signal", signal_ready, signal_round, nothing, 0 },
	{ "syscall", nothing, syscall_round, nothing, 0 },
	{ "timer", timer_ready, timer_round, nothing, 0 },
	{ 0 },
};
