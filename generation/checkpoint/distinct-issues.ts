import { fromReadonlyNonEmptyArray } from 'fp-ts/lib/NonEmptyArray.js'
import { isNonEmpty } from 'fp-ts/lib/ReadonlyArray.js'
import type { Issue, Issues } from '../../lib/error.js'

/**
 * The issues without repetitions: several readers of a folder may report the same missing file. A map by message, because a damaged folder
 * may have ten thousand issues, and comparing all pairs would take seconds.
 */
export const distinctIssues = (issues: Issues): Issues => {
  const byMessage = new Map<string, Issue>()
  for (const issue of issues) if (!byMessage.has(issue.message)) byMessage.set(issue.message, issue)
  const distinct = [...byMessage.values()]
  return isNonEmpty(distinct) ? fromReadonlyNonEmptyArray(distinct) : issues
}
