import { type Issue, issue } from '../../../lib/error.js'
import { exists as pathExists } from '../../../lib/files.js'
import { imageSourceOf, itemsOf, type Message, videoSourceOf } from '../../../processors/text/messages.js'
import type { DatasetRow, EvalRows } from '../../evaluate/eval-dataset.js'

const CONCURRENCY = 32

const textOf = (message: Message): string =>
  itemsOf(message)
    .map((item) => (item.type === 'text' ? item.text : ''))
    .join('')

/** Errors in the texts of a row. */
const textIssues = ({ messages, rejected }: DatasetRow, where: string): readonly Issue[] => {
  const isEmpty = (message: Message): boolean => textOf(message).trim() === '' && !message.tool_calls?.length
  const empty = messages.filter((message) => message.role === 'assistant' && isEmpty(message))
  const last = messages.at(-1)?.role
  return [
    ...empty.map(() => issue('EmptyAnswer', `${where}: an answer is empty, so there are no supervised tokens.`, { where })),
    ...(rejected?.trim() === '' ? [issue('EmptyAnswer', `${where}: the rejected answer is empty.`, { where })] : []),
    ...(last === 'assistant' ? [] : [issue('NoAnswer', `${where}: the conversation ends without an answer.`, { where })])
  ]
}

/** Local image and video files of a row. */
const filesOf = ({ messages }: DatasetRow): ReadonlyArray<{ readonly path: string; readonly kind: 'image' | 'video' }> =>
  messages.flatMap(itemsOf).flatMap((item) => {
    if (item.type === 'text') return []
    const source = item.type === 'image' ? imageSourceOf(item) : videoSourceOf(item)
    const kind = item.type === 'video' && !Array.isArray(source) ? 'video' : 'image'
    return [source]
      .flat()
      .flatMap((path) => (typeof path === 'string' && !/^(https?|data|file):/.test(path) ? [{ path, kind } as const] : []))
  })

/**
 * Validates rows before the first step without decoding images: empty answers, conversations without a final answer, missing image and
 * video files. Returns the valid rows, and the errors of the others by file and line.
 */
export const checkRows = async (rows: readonly DatasetRow[]): Promise<EvalRows> => {
  const known = new Map<string, Promise<boolean>>()
  const exists = (path: string): Promise<boolean> => {
    const result = known.get(path) ?? pathExists(path)
    known.set(path, result)
    return result
  }
  const results: (readonly Issue[])[] = []
  const queue = rows.entries()
  const worker = async (): Promise<void> => {
    for (const [i, row] of queue) {
      const where = row.where ?? row.id
      const files = await Promise.all(filesOf(row).map(async (file) => ({ ...file, exists: await exists(file.path) })))
      const missing = files.filter((file) => !file.exists)
      results[i] = [
        ...textIssues(row, where),
        ...missing.map(({ path, kind }) => issue('NotFound', `${where}: no such ${kind}: ${path}.`, { path, where }))
      ]
    }
  }
  await Promise.all(Array.from({ length: CONCURRENCY }, worker))
  return { rows: rows.filter((_, i) => results[i]!.length === 0), issues: results.flat() }
}
