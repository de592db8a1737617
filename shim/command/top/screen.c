/* SPDX-License-Identifier: MIT
 *
 * `chromashim top`: the terminal. Five escape sequences that every terminal of the last thirty
 * years knows do what is needed; a library would bring a database of terminals, and handlers of
 * signals that are not ours.
 */
#include "command/top/top.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "core/base/clock.h"

#define ENTER "\x1b[?1049h\x1b[?25l\x1b[2J"
#define LEAVE "\x1b[?25h\x1b[?1049l"

static struct termios saved;
static volatile sig_atomic_t is_open, left;

/* In handlers of signals, too. */
static void give_back(void)
{
	if (!is_open)
		return;
	is_open = 0;
	(void)!write(STDOUT_FILENO, LEAVE, sizeof(LEAVE) - 1);
	tcsetattr(STDIN_FILENO, TCSANOW, &saved);
}

static void take(void)
{
	struct termios raw = saved;

	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	raw.c_cc[VMIN] = 0;
	raw.c_cc[VTIME] = 0;
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	(void)!write(STDOUT_FILENO, ENTER, sizeof(ENTER) - 1);
	is_open = 1;
}

static void on_leave(int number)
{
	(void)number;
	left = 1;
}

/* What ends the process at once: its default comes after the terminal was given back. */
static void on_fatal(int number)
{
	give_back();
	signal(number, SIG_DFL);
	raise(number);
}

static void on_stop(int number)
{
	int error = errno;
	bool was_open = is_open;
	sigset_t set;

	give_back();
	signal(number, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, number);
	raise(number);
	sigprocmask(SIG_UNBLOCK, &set, NULL); /* here it stops, and goes on after SIGCONT */
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(number, on_stop);
	if (was_open)
		take();
	errno = error;
}

static void on_resize(int number)
{
	(void)number; /* it interrupts the waiting */
}

static void catch (int number, void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler};

	sigemptyset(&action.sa_mask);
	sigaction(number, &action, NULL);
}

void screen_catch_signals(void)
{
	catch (SIGINT, on_leave);
	catch (SIGTERM, on_leave);
	catch (SIGHUP, on_leave);
}

bool screen_open(void)
{
	static const int fatal[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGQUIT};
	size_t i;

	if (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &saved) < 0)
		return false;
	for (i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
		catch (fatal[i], on_fatal);
	catch (SIGTSTP, on_stop);
	catch (SIGWINCH, on_resize);
	atexit(give_back);
	take();
	return true;
}

void screen_close(void)
{
	give_back();
}

bool screen_is_left(void)
{
	return left;
}

void screen_size(unsigned *columns_out, unsigned *rows_out)
{
	struct winsize size = {.ws_col = 0};

	*columns_out = 80;
	*rows_out = 24;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col && size.ws_row) {
		*columns_out = size.ws_col;
		*rows_out = size.ws_row;
	}
}

bool screen_wait(uint64_t ns)
{
	struct pollfd in = {.fd = is_open ? STDIN_FILENO : -1, .events = POLLIN};
	uint64_t until = clock_read(CLOCK_MONOTONIC) + ns, now;

	while (!left && (now = clock_read(CLOCK_MONOTONIC)) < until) {
		char key;
		int n = poll(&in, 1, (int)((until - now) / 1000000 + 1));

		if (n < 0) /* a signal: a new size is drawn at once */
			break;
		if (n == 0)
			continue;
		if (in.revents & (POLLHUP | POLLERR | POLLNVAL))
			left = 1;
		if (read(STDIN_FILENO, &key, 1) == 1 && (key == 'q' || key == 'Q' || key == 3))
			left = 1;
	}
	return left;
}
