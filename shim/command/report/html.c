/* SPDX-License-Identifier: MIT
 *
 * report.html: words and tables.
 */
#include "command/report/page.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "command/base/terminal.h"
#include "core/base/json.h"

#define THIN "\xe2\x80\xaf" /* a space that does not break */

/* Characters that hide, or turn round what stands after them. */
static bool is_deceiving(const char *text, size_t n)
{
	const unsigned char *p = (const unsigned char *)text;

	if (n == 1)
		return (*p < 0x20 && *p != '\t' && *p != '\n') || *p == 0x7f;
	if (n == 2)
		return p[0] == 0xc2 && p[1] < 0xa0; /* C1 */
	/* U+200B..200F, U+2028..202E, U+2060..206F, U+FEFF */
	return n == 3 && ((p[0] == 0xe2 && p[1] == 0x80 &&
			   ((p[2] >= 0x8b && p[2] <= 0x8f) || (p[2] >= 0xa8 && p[2] <= 0xae))) ||
			  (p[0] == 0xe2 && p[1] == 0x81 && p[2] >= 0xa0 && p[2] <= 0xaf) ||
			  (p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf));
}

static void put_character(FILE *out, const char *text, size_t n)
{
	switch (n == 1 ? *text : 0) {
	case '&':
		fputs("&amp;", out);
		break;
	case '<':
		fputs("&lt;", out);
		break;
	case '>':
		fputs("&gt;", out);
		break;
	case '"':
		fputs("&quot;", out);
		break;
	case '\'':
		fputs("&#39;", out);
		break;
	default:
		if (n && !is_deceiving(text, n))
			fwrite(text, 1, n, out);
		else
			fputs("\xef\xbf\xbd", out);
	}
}

void page_text(struct page *p, const char *text)
{
	size_t left = strlen(text), n;

	while (left) {
		n = utf8_length(text, left);
		put_character(p->out, text, n);
		n = n ? n : 1;
		text += n;
		left -= n;
	}
}

static void put_number(struct page *p, uint64_t n)
{
	char digits[24];
	int length = snprintf(digits, sizeof(digits), "%" PRIu64, n), i;

	for (i = 0; i < length; i++) {
		if (i && (length - i) % 3 == 0)
			fputs(THIN, p->out);
		fputc(digits[i], p->out);
	}
}

/* How often. */
static void put_times(struct page *p, uint64_t n)
{
	if (n == 1 || n == 2) {
		fputs(n == 1 ? "once" : "twice", p->out);
		return;
	}
	put_number(p, n);
	fputs(" times", p->out);
}

/* With the date only where it may be another one than that of the log's end. */
static void put_time(struct page *p, uint64_t ns)
{
	char text[40];

	if (!ns) {
		fputs("\xe2\x80\x93", p->out);
		return;
	}
	fprintf(p->out, "<time datetime=\"%s\">", format_time_utc(text, sizeof(text), ns));
	format_time(text, sizeof(text), ns, p->utc);
	fprintf(p->out, "%.19s%s</time>", text, p->utc ? " UTC" : "");
}

static void put_argument(struct page *p, char letter, va_list *ap)
{
	char text[40];
	uint64_t number;

	if (letter == 'T') {
		page_text(p, va_arg(*ap, const char *));
		return;
	}
	if (letter == '%') {
		fputc('%', p->out);
		return;
	}
	number = va_arg(*ap, uint64_t);
	switch (letter) {
	case 'N':
		put_number(p, number);
		break;
	case 'd': /* plain, for attributes */
		fprintf(p->out, "%" PRIu64, number);
		break;
	case 'x':
		put_times(p, number);
		break;
	case 'B':
		fputs(format_bytes(text, sizeof(text), number), p->out);
		break;
	case 'c': /* where no markup may stand */
		format_time(text, sizeof(text), number, p->utc);
		fprintf(p->out, "%.19s", text);
		break;
	case 'D':
		fputs(format_duration(text, sizeof(text), number), p->out);
		break;
	default:
		put_time(p, number);
	}
}

void page_put(struct page *p, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	for (; *format; format++) {
		if (*format == '%')
			put_argument(p, *++format, &ap);
		else
			fputc(*format, p->out);
	}
	va_end(ap);
}

const char *page_name(struct page *p, const char *name, char out[DIGEST_TEXT])
{
	return digest_name(p->in, name, out, DIGEST_TEXT);
}

/* ---- sections and tables ---- */

void page_section(struct page *p, const char *id, const char *title, const char *sentence)
{
	page_put(p,
		 "<section id=\"%T\" aria-labelledby=\"h-%T\"><h2 id=\"h-%T\">%T</h2>\n<p "
		 "class=\"about\">%T</p>\n",
		 id, id, id, title, sentence);
}

void page_section_end(struct page *p)
{
	page_put(p, "</section>\n");
}

void page_table(struct page *p, const char *caption, const char *heads)
{
	page_put(p,
		 "<section class=\"scroll\" tabindex=\"0\" "
		 "aria-label=\"%T\"><table><caption><span>%T</span></caption>"
		 "<thead><tr>",
		 caption, caption);
	while (*heads) {
		size_t n = strcspn(heads, "|");
		char head[64];

		snprintf(head, sizeof(head), "%.*s", (int)n, heads);
		page_put(p,
			 *head == '#' ? "<th scope=\"col\" class=\"n\">%T</th>"
				      : "<th scope=\"col\">%T</th>",
			 head + (*head == '#'));
		heads += n + (heads[n] == '|');
	}
	page_put(p, "</tr></thead><tbody>\n");
}

void page_table_end(struct page *p)
{
	page_put(p, "</tbody></table></section>\n");
}

void page_table_below(struct page *p, const char *summary, const char *caption, const char *heads)
{
	page_put(p, "<details><summary>%T</summary>\n", summary);
	page_table(p, caption, heads);
}

void page_table_below_end(struct page *p)
{
	page_table_end(p);
	page_put(p, "</details>\n");
}
