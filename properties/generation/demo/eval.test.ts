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
  interface Printed {
    readonly tasks: Readonly<Record<string, { readonly right: number; readonly rows: number }>>
    readonly all: { readonly right: number; readonly rows: number }
    readonly scores: readonly { readonly task: string; readonly mean: number; readonly metrics: readonly string[] }[]
  }
  const summaryOf = async (args: readonly string[]): Promise<Printed> => JSON.parse(await printed([...args, '--json']))

  it('the demo model answers rendered scenes: every task is counted, and the mean score is at least 0.9', async () => {
    const { tasks, all, scores } = await summaryOf(['--count', '24'])
    const rows = Object.values(tasks)
    assert.equal(rows.reduce((sum, task) => sum + task.rows, 0), 24) // biome-ignore format: one line
    assert.equal(rows.reduce((sum, task) => sum + task.right, 0), all.right) // biome-ignore format: one line
    const { mean } = scores.find(({ task }) => task === 'all')!
    assert.ok(all.rows === 24 && mean >= 0.9, `${mean}`)
  })

  for (const patches of ['1', '2'])
    it(`the demo model finds shapes in images of up to ${patches} tiles: the mean IoU of the boxes is at least 0.75`, async () => {
      const { scores } = await summaryOf(['--task', 'find', '--count', '48', '--max-patches', patches])
      assert.ok(scores[0]!.metrics.includes('mean-iou') && scores[0]!.mean >= 0.75, JSON.stringify(scores))
    })

  it('a missing file is named', () => assert.rejects(printed(['folder', '/none.jsonl']), /none\.jsonl/))
})
