/** Names of this package's exports before version 0.2. */
export {
  /** @deprecated Use `Issue`. */
  type Issue as Fault,
  /** @deprecated Use `Issues`. */
  type Issues as Faults,
  /** @deprecated Use `issue`. */
  issue as fault
} from './error.js'
export type {
  /** @deprecated Use `AttentionMaskOptions`. */
  AttentionMaskOptions as Visibility
} from './nn/attention/attention.js'
export {
  /** @deprecated Use `initialRewardMean`. */
  initialRewardMean as noRewards,
  /** @deprecated Use `PreferenceLoss`. */
  type PreferenceLoss as Preference,
  /** @deprecated Use `PreferencePair`. */
  type PreferencePair as PairLogs,
  /** @deprecated Use `RunningRewardMean`. */
  type RunningRewardMean as RewardShift
} from './nn/losses/preference.js'
