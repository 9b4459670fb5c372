// SPDX-License-Identifier: GPL-2.0-only
#include <linux/driver.h>

int driver(void)
{
	return DRIVER_ANSWER;
}
