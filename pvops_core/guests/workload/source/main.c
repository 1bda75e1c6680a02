/*
 * The first process of a measured kernel: makes the rounds of the workloads that the command line names
 * (pvops_workload=fork:100,mmap:20), checks what they come to, says so, and powers off. Around the rounds of each
 * stand two marks, which the kernel does not see.
 */
#include "system.h"

char **environment;

static const struct workload *const groups[] = { process_workloads, memory_workloads, thread_workloads };

/* The lines begin as results of a guest do, so that they are held against those of other backends. */
static void say(const char *name, const char *what)
{
	print("guest: workload ");
	print(name);
	print(": ");
	print(what);
}

/* Until the console has taken all, so that nothing of it falls into the rounds. */
static void drain(void)
{
	call3(SYS_ioctl, 1, 0x5409, 1);		/* TCSBRK */
}

static wrong make_rounds(const struct workload *workload, unsigned long rounds, u32 number)
{
	wrong found = workload->make_ready(rounds);

	/* The first round of all touches what later ones find touched: it is not counted. */
	if (!found && !workload->of_threads)
		found = workload->round(0);
	if (found)
		return found;
	value = 0;
	mark(2 * number);
	if (workload->of_threads)
		found = workload->round(rounds);
	for (unsigned long round = 1; round <= rounds && !workload->of_threads && !found; round++)
		found = workload->round(round);
	mark(2 * number + 1);
	if (found)
		return found;
	return workload->finish(rounds);
}

static const struct workload *workload_called(const char *name)
{
	for (unsigned int group = 0; group < sizeof(groups) / sizeof(*groups); group++)
		for (const struct workload *each = groups[group]; each->name; each++)
			if (same(each->name, name))
				return each;
	return 0;
}

/* One entry of the list, and its number. */
static void carry_out(const char *name, unsigned long rounds, u32 number)
{
	const struct workload *workload = workload_called(name);
	wrong found = workload ? 0 : "this program has no such workload";

	drain();
	if (workload)
		found = make_rounds(workload, rounds, number);
	if (found) {
		say(name, "failed: ");
		print(found);
	} else {
		say(name, "ok, rounds ");
		print_number(rounds);
		print(", value ");
		print_number(value);
	}
	print("\n");
}

static void carry_out_all(const char *list)
{
	char name[16];

	for (u32 number = 0; *list; number++) {
		unsigned int length = 0;

		for (; *list && *list != ':' && *list != ','; list++)
			if (length < sizeof(name) - 1)
				name[length++] = *list;
		name[length] = 0;
		list += *list == ':';
		carry_out(name, number_at(&list), number);
		while (*list && *list++ != ',')
			;
	}
}

static const char *variable(const char *name)
{
	for (char **each = environment; *each; each++) {
		unsigned int at = 0;

		while (name[at] && name[at] == (*each)[at])
			at++;
		if (!name[at] && (*each)[at] == '=')
			return *each + at + 1;
	}
	return "";
}

enum { CONSOLE_OFF = 6, CONSOLE_ON = 7 };	/* of the kernel's own messages (include/linux/syslog.h) */

void begin(long *stack)
{
	long count = stack[0];
	char **arguments = (char **)stack + 1;

	environment = arguments + count + 1;
	if (count == 3 && same(arguments[1], "exit") && call0(SYS_getpid) != 1) {
		const char *text = arguments[2];

		exit_process(number_at(&text) & 127);
	}
	/* The kernel's lines would stand within ours, and their printing be counted. */
	call3(SYS_syslog, CONSOLE_OFF, 0, 0);
	look_for_processors();
	pin(0);
	carry_out_all(variable("pvops_workload"));
	say("all", "done\n");
	drain();
	call3(SYS_syslog, CONSOLE_ON, 0, 0);
	call3(SYS_reboot, 0xfee1dead, 672274793, 0x4321fedc);	/* LINUX_REBOOT_CMD_POWER_OFF */
	exit_process(1);
}

#ifdef __x86_64__
asm(".globl _start; _start: mov %rsp, %rdi; and $-16, %rsp; call begin");
#else
asm(".globl _start; _start: mov %esp, %eax; and $-16, %esp; sub $12, %esp; push %eax; call begin");
#endif
