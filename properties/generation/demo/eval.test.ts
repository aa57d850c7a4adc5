import assert from 'node:assert/strict'
import { demoEvalCommand } from '../../../generation/cli/commands/demo/demo-eval-command.js'

/** Standard output of a command. */
const printed = async (args: readonly string[]): Promise<string> => {
  const [log, lines] = [console.log, [] as string[]]
  console.log = (line: unknown) => void lines.push(String(line))
  try {
    await demoEvalCommand()
      .exitOverride()
      .parseAsync(['node', 'demo-eval', ...args])
  } finally {
    console.log = log
  }
  return lines.join('\n')
}

describe('demo-eval', () => {
  it('the demo model answers rendered scenes: every task is counted, and at least nine in ten answers are correct', async () => {
    const { tasks, all } = JSON.parse(await printed(['--count', '24', '--json']))
    const rows = Object.values<{ right: number; rows: number }>(tasks)
    assert.equal(rows.reduce((sum, task) => sum + task.rows, 0), 24) // biome-ignore format: one line
    assert.equal(rows.reduce((sum, task) => sum + task.right, 0), all.right) // biome-ignore format: one line
    assert.ok(all.rows === 24 && all.right >= 22, `${all.right} of ${all.rows}`)
  })

  it('a missing file is named', () => assert.rejects(printed(['folder', '/none.jsonl']), /none\.jsonl/))
})
