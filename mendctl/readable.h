/* JSON elements for people: "TYPE  key value  key value", members of lists on lines of their own below. */
#ifndef MENDCTL_READABLE_H
#define MENDCTL_READABLE_H

#include <stdio.h>

#include "control/json.h"

void readable_print(FILE *to, struct json_object *element);

#endif
