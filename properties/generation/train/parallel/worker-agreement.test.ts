import assert from 'node:assert/strict'
import { agreementIssues, expectAgreement, type RunFacts } from '../../../../generation/train/parallel/worker-agreement.js'
import { InternVLError } from '../../../../lib/error.js'
import { inMemoryGroup } from '../../../lib/distributed/in-memory-group.js'

const facts: RunFacts = {
  ...{ model: 'aaaa', versions: 'Node.js 22, TensorFlow 2.18.0', data: 'd', validation: '', workers: 'a:1,b:2', zero: 0 },
  settings: { seed: 0, 'optimizer.learningRate': 1e-5, output: 'here' }
}
const report = { facts, errors: [] as readonly string[], clock: 1e12 }
const messages = (second: Partial<typeof report>) =>
  agreementIssues(['a:1', 'b:2'], [report, { ...report, ...second }]).map(({ message }) => message)

describe('agreement of workers', () => {
  it('is silent about paths of a machine and clocks that differ by minutes', () => {
    assert.deepEqual(messages({}), [])
    assert.deepEqual(messages({ facts: { ...facts, settings: { ...facts.settings, output: 'there' } }, clock: 1e12 + 600e3 }), [])
  })

  it('names each difference in one sentence', () => {
    const cases: readonly (readonly [Partial<RunFacts>, RegExp])[] = [
      [
        { model: 'bbbb' },
        /^worker 1 \(b:2\): the model has another content \(bbbb\) than that of worker 0 \(aaaa\); copy the same folder/
      ],
      [{ data: 'e' }, /the training data differs/],
      [{ validation: 'e' }, /the validation set differs/],
      [{ versions: 'Node.js 20, TensorFlow 2.18.0' }, /the versions are Node\.js 20.*worker 0 are Node\.js 22/],
      [{ workers: 'a:1,c:3' }, /--workers is a:1,c:3, that of worker 0 is a:1,b:2/],
      [{ zero: 1 }, /--zero is 1, that of worker 0 is 0/],
      [{ settings: { ...facts.settings, seed: 7 } }, /seed is 7, that of worker 0 is 0; use the same settings/]
    ]
    for (const [difference, message] of cases) {
      const found = messages({ facts: { ...facts, ...difference } })
      assert.equal(found.length, 1)
      assert.match(found[0]!, message)
    }
    assert.match(messages({ clock: 1e12 - 2.5 * 3.6e6 })[0]!, /worker 1 \(b:2\): the clock is 2\.5 hours behind that of worker 0/)
  })

  it('ends all workers with the errors of one', async () => {
    const ends = inMemoryGroup(2).map((group) => expectAgreement(group, group.rank === 1 ? { facts: undefined, errors: ['d.jsonl: no such file'] } : report)) // biome-ignore format: one line
    for (const end of await Promise.allSettled(ends)) {
      assert.ok(end.status === 'rejected' && end.reason instanceof InternVLError)
      assert.equal(end.reason.message, 'worker 1 (worker-1:4000): d.jsonl: no such file')
    }
  })
})
