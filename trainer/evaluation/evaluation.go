// Package evaluation judges predictions on rows whose answers are known: of classes by their
// probabilities, of numbers by how far off they are.
package evaluation

import (
	"math"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
)

const (
	// maxPoints is how many points of a curve are kept.
	maxPoints = 200
	// bins is in how many parts of equal width probabilities are compared with what was.
	bins = 10
	// least keeps the logarithm of a probability of 0 finite, as others do.
	least = 1e-15
)

// Classification says how good probabilities of classes are.
type Classification struct {
	Rows int `json:"rows"`
	// Accuracy is the share of rows whose likeliest class is the right one; of equally likely
	// ones the first is taken.
	Accuracy float64 `json:"accuracy"`
	// LogLoss is the mean of -log of the right class's probability, Brier that of the squared
	// distances between probabilities and 1 for the right class and 0 for the others.
	LogLoss float64 `json:"log_loss"`
	Brier   float64 `json:"brier"`
	// AUC and AveragePrecision are those of the second of two classes, and of more the mean
	// over the classes that have rows, each against the rest.
	AUC              float64 `json:"auc"`
	AveragePrecision float64 `json:"average_precision"`
	// CalibrationError is how far the likeliest class's probability is from how often it is
	// right: the mean over 10 bins, weighted by their rows (Naeini et al. 2015).
	CalibrationError float64 `json:"calibration_error"`
	Classes          []Class `json:"classes"`
	// Confusion counts rows of class i that were taken for class j.
	Confusion [][]int `json:"confusion"`
}

// Class is one class against the rest.
type Class struct {
	Name             string  `json:"name"`
	Rows             int     `json:"rows"`
	Precision        float64 `json:"precision"` // 0 if no row was taken for it
	Recall           float64 `json:"recall"`    // 0 if it has no row
	F1               float64 `json:"f1"`
	AUC              float64 `json:"auc"` // 0.5 where one side has no row
	AveragePrecision float64 `json:"average_precision"`
	// ROC has the share of others taken for it and that of its own, PR recall and precision.
	ROC         []Point `json:"roc,omitempty"`
	PR          []Point `json:"pr,omitempty"`
	Calibration []Bin   `json:"calibration,omitempty"`
}

// Point is one of a curve.
type Point struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// Bin are the rows whose probability lies in a tenth.
type Bin struct {
	Rows      int     `json:"rows"`
	Predicted float64 `json:"predicted"` // mean probability
	Observed  float64 `json:"observed"`  // share that is of the class
}

// Classify judges probabilities, so many for each row as there are classes, one row after the
// other, against the right classes.
func Classify(probabilities []float64, right []int, classes []string) (*Classification, error) {
	k, n := len(classes), len(right)
	if n == 0 {
		return nil, fault.New(fault.Invalid, "no rows to judge by")
	}
	if k < 2 || len(probabilities) != k*n {
		return nil, fault.New(fault.Internal, "%d probabilities for %d rows of %d classes", len(probabilities), n, k)
	}
	c := &Classification{Rows: n, Classes: make([]Class, k)}
	for i, name := range classes {
		c.Classes[i].Name = name
		c.Confusion = append(c.Confusion, make([]int, k))
	}
	var certain [bins]Bin
	for row, class := range right {
		if class < 0 || class >= k {
			return nil, fault.New(fault.Invalid, "row %d is of class %d: there are 0 to %d", row+1, class, k-1)
		}
		p := probabilities[row*k : (row+1)*k]
		taken := 0
		for i, v := range p {
			if !(v >= 0 && v <= 1+1e-6) {
				return nil, fault.New(fault.Invalid, "row %d: %v is no probability", row+1, v)
			}
			if v > p[taken] {
				taken = i
			}
			miss := v
			if i == class {
				miss = v - 1
			}
			c.Brier += miss * miss / float64(n)
		}
		c.LogLoss -= math.Log(max(p[class], least)) / float64(n)
		c.Confusion[class][taken]++
		hit := 0.0
		if taken == class {
			hit = 1
		}
		c.Accuracy += hit / float64(n)
		certain[binOf(p[taken])].add(p[taken], hit)
	}
	for _, b := range certain {
		if b.Rows > 0 {
			c.CalibrationError += float64(b.Rows) / float64(n) * math.Abs(b.Predicted-b.Observed)
		}
	}
	for i := range c.Classes {
		c.one(i, probabilities, right)
	}
	c.sumUp()
	return c, nil
}

func binOf(p float64) int { return min(int(p*bins), bins-1) }

// add keeps means.
func (b *Bin) add(predicted, observed float64) {
	b.Rows++
	b.Predicted += (predicted - b.Predicted) / float64(b.Rows)
	b.Observed += (observed - b.Observed) / float64(b.Rows)
}

// one judges a class against the rest.
func (c *Classification) one(class int, probabilities []float64, right []int) {
	k, one := len(c.Classes), &c.Classes[class]
	taken := 0
	for i := range k {
		taken += c.Confusion[i][class]
		one.Rows += c.Confusion[class][i]
	}
	if hits := float64(c.Confusion[class][class]); hits > 0 {
		one.Precision, one.Recall = hits/float64(taken), hits/float64(one.Rows)
		one.F1 = 2 * one.Precision * one.Recall / (one.Precision + one.Recall)
	}
	scores, is := make([]float64, len(right)), make([]bool, len(right))
	var calibration [bins]Bin
	for row := range right {
		scores[row], is[row] = probabilities[row*k+class], right[row] == class
		observed := 0.0
		if is[row] {
			observed = 1
		}
		calibration[binOf(scores[row])].add(scores[row], observed)
	}
	for _, b := range calibration {
		if b.Rows > 0 {
			one.Calibration = append(one.Calibration, b)
		}
	}
	one.AUC, one.AveragePrecision, one.ROC, one.PR = curves(scores, is)
}

func (c *Classification) sumUp() {
	if len(c.Classes) == 2 {
		c.AUC, c.AveragePrecision = c.Classes[1].AUC, c.Classes[1].AveragePrecision
		return
	}
	with := 0.0
	for _, one := range c.Classes {
		if one.Rows > 0 && one.Rows < c.Rows {
			with++
			c.AUC += (one.AUC - c.AUC) / with
			c.AveragePrecision += (one.AveragePrecision - c.AveragePrecision) / with
		}
	}
}

// curves goes through the thresholds from the highest score down; rows of equal score pass
// together. The area under the ROC curve is the chance that a row of the class has a greater
// score than one of the others, equal ones counting half; average precision is the sum of the
// precisions weighted by the recall that each threshold adds.
func curves(scores []float64, is []bool) (auc, precision float64, roc, pr []Point) {
	order := make([]int, len(scores))
	own := 0
	for i := range order {
		order[i] = i
		if is[i] {
			own++
		}
	}
	others := len(scores) - own
	if own == 0 || others == 0 {
		return 0.5, float64(own) / float64(len(scores)), nil, nil
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case scores[a] > scores[b]:
			return -1
		case scores[a] < scores[b]:
			return 1
		}
		return 0
	})
	roc = append(roc, Point{0, 0})
	hits, misses := 0, 0
	for i := 0; i < len(order); {
		before, beforeMisses := hits, misses
		for score := scores[order[i]]; i < len(order) && scores[order[i]] == score; i++ {
			if is[order[i]] {
				hits++
			} else {
				misses++
			}
		}
		auc += float64(misses-beforeMisses) * float64(hits+before) / 2
		p := float64(hits) / float64(hits+misses)
		precision += p * float64(hits-before) / float64(own)
		roc = append(roc, Point{float64(misses) / float64(others), float64(hits) / float64(own)})
		if hits > before {
			pr = append(pr, Point{float64(hits) / float64(own), p})
		}
	}
	return auc / (float64(own) * float64(others)), precision, thin(roc), thin(pr)
}

// thin keeps the first point, the last, and of the others at most so many, evenly.
func thin(points []Point) []Point {
	if len(points) <= maxPoints {
		return points
	}
	kept := make([]Point, 0, maxPoints)
	for i := range maxPoints {
		kept = append(kept, points[i*(len(points)-1)/(maxPoints-1)])
	}
	return kept
}

// Regression says how good predictions of a number are.
type Regression struct {
	Rows int     `json:"rows"`
	RMSE float64 `json:"rmse"`
	MAE  float64 `json:"mae"`
	// R2 is the share of the variance that is explained; 0 if there is none to explain.
	R2 float64 `json:"r2"`
	// Bias is the mean of prediction less truth.
	Bias float64 `json:"bias"`
	// Residuals are quantiles of prediction less truth: 0, 5, 25, 50, 75, 95 and 100 %.
	Residuals [7]float64 `json:"residuals"`
	// Sample are some rows, evenly over the truths: truth and prediction.
	Sample []Point `json:"sample"`
}

var residualQuantiles = [7]float64{0, 0.05, 0.25, 0.5, 0.75, 0.95, 1}

// Regress judges predictions against the truth.
func Regress(predicted, truth []float64) (*Regression, error) {
	n := len(truth)
	if n == 0 || len(predicted) != n {
		return nil, fault.New(fault.Invalid, "no rows to judge by")
	}
	r := &Regression{Rows: n}
	residuals := make([]float64, n)
	mean, squares, spread := 0.0, 0.0, 0.0
	for _, v := range truth {
		mean += v / float64(n)
	}
	points := make([]Point, n)
	for i, v := range truth {
		d := predicted[i] - v
		if math.IsNaN(d) || math.IsInf(d, 0) {
			return nil, fault.New(fault.Invalid, "row %d: predicted %v where %v is right", i+1, predicted[i], v)
		}
		residuals[i], points[i] = d, Point{v, predicted[i]}
		squares += d * d / float64(n)
		spread += (v - mean) * (v - mean) / float64(n)
		r.MAE += math.Abs(d) / float64(n)
		r.Bias += d / float64(n)
	}
	r.RMSE = math.Sqrt(squares)
	if spread > 0 {
		r.R2 = 1 - squares/spread
	}
	slices.Sort(residuals)
	for i, q := range residualQuantiles {
		at := q * float64(n-1)
		low := int(at)
		high := min(low+1, n-1)
		r.Residuals[i] = residuals[low] + (at-float64(low))*(residuals[high]-residuals[low])
	}
	slices.SortStableFunc(points, func(a, b Point) int {
		switch {
		case a.X < b.X:
			return -1
		case a.X > b.X:
			return 1
		}
		return 0
	})
	r.Sample = thin(points)
	return r, nil
}
