import { type Issue, issue } from '../../../lib/error.js'
import { isThere } from '../../../lib/is-there.js'
import { imageOf, itemsOf, type Message, videoOf } from '../../../processors/text/messages.js'
import type { DatasetRow, ReadRows } from '../../evaluate/eval-dataset.js'

const AT_ONCE = 32

const textOf = (message: Message): string =>
  itemsOf(message)
    .map((item) => (item.type === 'text' ? item.text : ''))
    .join('')

/** What is wrong with what a row says. */
const issuesInText = ({ messages, rejected }: DatasetRow, where: string): readonly Issue[] => {
  const empty = messages.filter((message) => message.role === 'assistant' && textOf(message).trim() === '')
  const last = messages.at(-1)?.role
  return [
    ...empty.map(() => issue('EmptyAnswer', `${where}: an answer is empty; there is nothing to learn.`, { where })),
    ...(rejected?.trim() === '' ? [issue('EmptyAnswer', `${where}: the rejected answer is empty.`, { where })] : []),
    ...(last === 'assistant' ? [] : [issue('NoAnswer', `${where}: the conversation ends without an answer.`, { where })])
  ]
}

/** Files that a row shows. */
const filesOf = ({ messages }: DatasetRow): ReadonlyArray<{ readonly path: string; readonly kind: string }> =>
  messages.flatMap(itemsOf).flatMap((item) => {
    if (item.type === 'text') return []
    const source = item.type === 'image' ? imageOf(item) : videoOf(item)
    const kind = item.type === 'video' && !Array.isArray(source) ? 'film' : 'picture'
    return [source]
      .flat()
      .flatMap((path) => (typeof path === 'string' && !/^(https?|data|file):/.test(path) ? [{ path, kind }] : []))
  })

/**
 * All that can be found wrong with rows before the first step, without reading a picture: an empty answer, none at the end, a
 * picture or film that is not there. Sound rows, and the errors of the others, by file and line.
 */
export const checkRows = async (rows: readonly DatasetRow[]): Promise<ReadRows> => {
  const known = new Map<string, Promise<boolean>>()
  const found = (path: string): Promise<boolean> => {
    const asked = known.get(path) ?? isThere(path)
    known.set(path, asked)
    return asked
  }
  const results: (readonly Issue[])[] = []
  const queue = rows.entries()
  const worker = async (): Promise<void> => {
    for (const [i, row] of queue) {
      const where = row.where ?? row.id
      const there = await Promise.all(filesOf(row).map(async (file) => ({ ...file, found: await found(file.path) })))
      const missing = there.filter(({ found }) => !found)
      results[i] = [
        ...issuesInText(row, where),
        ...missing.map(({ path, kind }) => issue('NotFound', `${where}: no such ${kind}: ${path}.`, { path, where }))
      ]
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return { rows: rows.filter((_, i) => results[i]!.length === 0), issues: results.flat() }
}
