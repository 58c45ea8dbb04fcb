package verify

import "strings"

// maxCondition bounds one condition, in bytes: a backfill takes 16 KiB.
const maxCondition = 15 << 10

// maxRepaired rows of a table are brought by one repair.
const maxRepaired = 100_000

// conditions writes those for a backfill of just the rows that differ and which the source has. A row whose key cannot
// be written as one is left out.
func (c *comparison) conditions() {
	if c.run.o.Condition == nil || c.report.Error != "" {
		return
	}
	var now strings.Builder
	for _, key := range c.repair {
		one, err := c.run.o.Condition(c.is, key)
		if err != nil {
			continue
		}
		if now.Len() > 0 && now.Len()+len(one) > maxCondition {
			c.report.Repair = append(c.report.Repair, now.String())
			now.Reset()
		}
		if now.Len() > 0 {
			now.WriteString(" OR ")
		}
		now.WriteString(one)
		c.report.Repaired++
	}
	if now.Len() > 0 {
		c.report.Repair = append(c.report.Repair, now.String())
	}
}
